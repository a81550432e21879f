"""The rescaled schedule: its ends, what it keeps, and the last interval where log_snr runs to minus infinity."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.schedules import edm, scaled_linear
from ldm_jax.schedules.zero_terminal import Schedule
from tests import oracles


def test_the_first_level_stays_and_the_last_is_noise_alone():
    with oracles.float64():
        level = Schedule().level(jnp.array([0.0, 999.0]))
        base = scaled_linear.Schedule().level(jnp.array(0.0))
        np.testing.assert_allclose(level.alpha[0], base.alpha, rtol=1e-12)
        assert (float(level.alpha[1]), float(level.sigma[1])) == (0, 1)


def test_alpha_is_an_affine_map_of_the_bases():
    with oracles.float64():
        times = jnp.array([0, 1, 333, 800, 998])
        alpha, base = Schedule().level(times).alpha, scaled_linear.Schedule().level(times).alpha
        slopes = jnp.diff(alpha) / jnp.diff(base)
        np.testing.assert_allclose(slopes, slopes[0], rtol=1e-9)


def test_the_last_interval_is_finite_and_falls_steadily_to_zero():
    level = Schedule().level(jnp.linspace(998, 999, 11))
    np.testing.assert_allclose(level.alpha, level.alpha[0] * np.linspace(1, 0, 11), atol=1e-7)
    times = Schedule().time(2 * jnp.log(level.alpha / level.sigma))
    np.testing.assert_allclose(times, level.t, atol=2e-3)  # of 999, in float32


def test_a_last_alpha_above_zero_is_taken_as_it_is():
    level = Schedule(last_alpha_cumprod=2.0**-24).level(jnp.array(999.0))
    np.testing.assert_allclose(level.alpha**2, 2.0**-24, rtol=1e-5)


def test_comfyui_has_the_same_range_of_sigmas():
    level = Schedule(last_alpha_cumprod=4.8973451890853435e-08).level(jnp.array(999.0))
    np.testing.assert_allclose(level.sigma / level.alpha, 4518.76, rtol=1e-4)


def test_a_nested_spec_becomes_the_base():
    spec = dict(name='zero_terminal', base=dict(name='scaled_linear', beta_start=0.0015, beta_end=0.0195))
    schedule = build.build('schedules', spec)
    assert schedule == Schedule(base=scaled_linear.Schedule(0.0015, 0.0195))
    hash(schedule)


def test_a_base_without_betas_and_an_impossible_end_are_refused():
    with pytest.raises(ValueError, match='betas.*sigma_min'):
        Schedule(base=edm.Schedule())
    with pytest.raises(ValueError, match='0.5'):
        Schedule(last_alpha_cumprod=0.5)
