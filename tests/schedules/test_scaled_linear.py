"""Stable Diffusion's schedule against diffusers' table and its published range."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.schedules.scaled_linear import Schedule
from tests import oracles


def test_whole_times_equal_diffusers_table():
    diffusers = pytest.importorskip('diffusers')
    theirs = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear')
    with oracles.float64():
        level = Schedule().level(jnp.arange(1000))
        # diffusers' table is float32 throughout, which costs it 1e-5 over a thousand products
        assert oracles.relative_error(level.alpha**2, theirs.alphas_cumprod.numpy()) < 2e-5


def test_the_product_of_one_minus_beta_in_closed_form():
    with oracles.float64():
        level = Schedule(0.0015, 0.0195).level(jnp.arange(1000))
        betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
        assert oracles.relative_error(level.alpha**2, np.cumprod(1 - betas)) < 1e-12
        assert oracles.relative_error(level.sigma**2, 1 - np.cumprod(1 - betas)) < 1e-12


def test_the_published_sigma_range_of_stable_diffusion():
    level = Schedule().level(jnp.array([0, 999]))
    np.testing.assert_allclose(level.sigma / level.alpha, [0.0292, 14.6146], rtol=2e-3)


def test_float32_keeps_small_noise_exact():
    level = Schedule().level(jnp.array(0))
    np.testing.assert_allclose(level.sigma**2, 0.00085, rtol=1e-5)


@pytest.mark.parametrize(
    'fields', [dict(beta_start=0.0), dict(beta_start=0.5, beta_end=0.1), dict(num_train_steps=1)]
)
def test_impossible_settings_are_refused(fields):
    with pytest.raises(ValueError, match='must'):
        Schedule(**fields)
