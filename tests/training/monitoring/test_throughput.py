"""Rates against hand counts."""

import jax
import jax.numpy as jnp
import pytest

from ldm_jax.training.monitoring import throughput


@pytest.mark.parametrize(
    ('kind', 'peak'),
    [
        ('TPU v5 lite', 197e12),
        ('TPU v5', 459e12),
        ('TPU v4', 275e12),
        ('NVIDIA H100 80GB HBM3', 989e12),
        ('NVIDIA H100 PCIe', 756e12),
        ('NVIDIA A100-SXM4-40GB', 312e12),
        ('NVIDIA L40S', 362e12),
        ('Tesla V100-SXM2-16GB', 125e12),
        ('cpu', None),
        ('NVIDIA L400', None),
    ],
)
def test_peaks_are_found_by_what_jax_calls_a_device(kind, peak):
    assert throughput.peak_flops(kind) == peak


def test_flops_of_a_step_are_those_of_its_products_and_of_their_gradients():
    def step(w, x):
        return jax.grad(lambda w: jnp.sum(jax.nn.relu(x @ w) @ w))(w)

    program = jax.jit(step).trace(jnp.ones((8, 8)), jnp.ones((4, 8))).jaxpr
    # Two products forward, of which the second's value is not needed; the first's gradient is of w alone.
    assert throughput.step_flops(program) in (2 * 4 * 64 * products for products in (4, 5))


def test_what_cannot_be_counted_is_none():
    def step(x):
        return jax.lax.while_loop(lambda a: a.sum() < 1, lambda a: a @ a, x)

    assert throughput.step_flops(jax.jit(step).trace(jnp.ones((4, 4))).jaxpr) is None


def test_a_clock_counts_steps_and_shares(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throughput.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(throughput, 'peak_flops', lambda kind: 1000.0)
    monkeypatch.setattr(throughput, 'memory', dict)
    clock = throughput.Clock(batch_size=16, devices=2)
    for _ in range(5):
        clock.step(waited=0.4, flops=800.0)
    now[0] += 12
    clock.aside(2.0)
    assert clock.close() == {
        'images_per_second': 8.0,
        'steps_per_second': 0.5,
        'data_wait': 0.2,
        'flop_utilisation': 0.2,  # 800 FLOPs every 2 s on two devices that can do 1000 a second
    }
    clock.step(waited=0.0, flops=None)
    now[0] += 1
    rates = clock.close()
    assert rates['steps_per_second'] == 1.0
    assert 'flop_utilisation' not in rates


def test_memory_is_left_out_where_devices_do_not_tell():
    assert throughput.memory() == {}
