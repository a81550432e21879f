"""Optimizers from plain settings."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.training.optimizer import adamw

PARAMS = {'conv': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}}


def test_weight_decay_spares_biases():
    tx = adamw(0.1, 10, weight_decay=0.5)
    gradients = {'conv': {'kernel': jnp.zeros(2), 'bias': jnp.zeros(2)}}
    updates, _ = tx.update(gradients, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates['conv']['kernel'], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates['conv']['bias'], 0)


def test_the_rate_rises_then_falls():
    tx = adamw(0.1, 100, warmup_steps=10, final_lr=0.001)
    state, sizes = tx.init(PARAMS), []
    gradients = {'conv': {'kernel': jnp.full(2, 0.1), 'bias': jnp.full(2, 0.1)}}
    for _ in range(101):
        updates, state = tx.update(gradients, state, PARAMS)
        sizes.append(float(-updates['conv']['kernel'][0]))  # Adam's step on a constant gradient is the rate
    np.testing.assert_allclose(
        [sizes[0], sizes[10], sizes[55], sizes[100]], [0, 0.1, 0.0505, 0.001], rtol=1e-3, atol=1e-9
    )


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match='warmup_steps.*10.*20'):
        adamw(0.1, 10, warmup_steps=20)
