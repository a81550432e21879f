"""Levels that a sampler made itself are found on the schedule; those of a table are left alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion.denoiser import on_schedule
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import NoiseLevel
from tests import oracles

X = np.random.default_rng(0).standard_normal((2, 3))


def network(x, level):
    return jnp.tanh(x + level.t / 1000) - level.alpha * x + level.sigma**2


@pytest.mark.parametrize('scale', [1.0, 0.1, 14.0])
@pytest.mark.parametrize('t', [0.0, 321.5, 999.0])
def test_a_level_of_any_scale_without_a_time_is_that_of_its_signal_to_noise_ratio(t, scale):
    with oracles.float64():
        level = Schedule().level(t)
        made = NoiseLevel(t=jnp.array(jnp.nan), alpha=scale * level.alpha, sigma=scale * level.sigma)
        out = on_schedule(network, Schedule())(scale * X, made)
        np.testing.assert_allclose(out, network(X, level), rtol=1e-9)


def test_levels_with_a_time_are_left_alone():
    odd = NoiseLevel(t=jnp.array(7.0), alpha=jnp.array(0.3), sigma=jnp.array(2.0))
    np.testing.assert_array_equal(on_schedule(network, Schedule())(X, odd), network(X, odd))


def test_no_signal_at_all_is_the_noisiest_time_and_finite():
    made = NoiseLevel(t=jnp.array(jnp.nan), alpha=jnp.array(0.0), sigma=jnp.array(2.0))
    out = on_schedule(lambda x, level: x + level.t, Schedule())(X, made)
    np.testing.assert_allclose(out, X / 2 + 999, rtol=1e-6)
