"""The loop: any number of steps from one program, each image on its own, gradients where they are wanted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion.sampling import padded, sample
from ldm_jax.samplers.ddim import Sampler
from ldm_jax.schedules.scaled_linear import Schedule
from tests.oracles import keys


def levels(steps):
    return Schedule().level(jnp.linspace(999.0, 0.0, steps + 1))


def denoise(x, level):
    return jnp.tanh(x + level.sigma)


X = jax.random.normal(jax.random.key(3), (4, 5))


@pytest.mark.slow
def test_a_padded_table_is_walked_to_its_own_end_only():
    expected = sample(Sampler(eta=0.7), denoise, X, levels(6), keys(X))
    out = sample(Sampler(eta=0.7), denoise, X, padded(levels(6), 11), keys(X), 6)
    np.testing.assert_array_equal(out, expected)


def test_settings_of_a_run_compile_nothing_and_fewer_steps_cost_fewer_evaluations():
    evaluations, traces = [], []

    def counted(x, level):
        traces.append(1)
        jax.debug.callback(lambda: evaluations.append(1))
        return denoise(x, level)

    @jax.jit
    def run(sampler, x, table, keys, num_steps):
        return sample(sampler, counted, x, table, keys, num_steps)

    for steps in (1, 4, 9):
        for eta in (0.0, 0.3):
            evaluations.clear()
            run(Sampler(eta=eta), X, padded(levels(steps), 9), keys(X, steps), steps).block_until_ready()
            jax.effects_barrier()
            assert len(evaluations) == steps
    assert run._cache_size() == 1
    assert len(traces) == 1


@pytest.mark.slow
@pytest.mark.parametrize('steps', [3, 8])
def test_the_differentiable_walk_is_the_same_and_has_the_gradient_of_finite_differences(steps):
    table = padded(levels(steps), 8)

    def loss(shift, differentiable=True):
        def shifted(x, level):
            return denoise(x, level) + shift

        x = sample(Sampler(), shifted, X, table, keys(X), steps, differentiable=differentiable)
        return jnp.sum(x**2)

    np.testing.assert_allclose(loss(0.1), loss(0.1, differentiable=False), rtol=1e-6)
    numeric = (loss(0.101) - loss(0.099)) / 0.002
    np.testing.assert_allclose(jax.grad(loss)(0.1), numeric, rtol=1e-2)


@pytest.mark.slow
def test_an_image_depends_on_its_key_alone():
    out = sample(Sampler(eta=1.0), denoise, X, levels(5), keys(X))
    alone = sample(Sampler(eta=1.0), denoise, X[2:3], levels(5), keys(X)[2:3])
    np.testing.assert_allclose(alone, out[2:3], atol=2e-6)


@pytest.mark.slow
def test_one_call_takes_settings_of_each_image():
    etas, counts = jnp.array([0.0, 0.5, 1.0, 1.0]), jnp.array([9, 9, 5, 2])
    tables = [padded(levels(int(n)), 9) for n in counts]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *tables)

    def one(eta, x, table, key, count):
        return sample(Sampler(eta=eta), denoise, x[None], table, key[None], count)[0]

    out = jax.vmap(one)(etas, X, stacked, keys(X), counts)
    for i in range(4):
        alone = one(etas[i], X[i], tables[i], keys(X)[i], counts[i])
        np.testing.assert_allclose(out[i], alone, atol=2e-6)


def test_a_table_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match=r'9 steps.*table of 4'):
        padded(levels(9), 4)
