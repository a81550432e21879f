"""A list of betas is the schedule that made it, and that of diffusers."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.build import build
from ldm_jax.schedules import linear, scaled_linear, squared_cosine, trained_betas
from tests import oracles


@pytest.mark.parametrize('module', [linear, scaled_linear, squared_cosine])
def test_the_betas_of_a_schedule_are_that_schedule(module):
    with oracles.float64():
        whole = module.Schedule(num_train_steps=200)
        kept = whole.alphas_cumprod() / np.append(1, whole.alphas_cumprod()[:-1])
        same = trained_betas.Schedule(tuple(1 - kept))
        t = jnp.linspace(0, 199, 57)
        np.testing.assert_allclose(same.level(t).sigma, whole.level(t).sigma, rtol=1e-9)
        np.testing.assert_allclose(same.level(t).alpha, whole.level(t).alpha, rtol=1e-9)


def test_it_is_that_of_diffusers():
    pytest.importorskip('torch')
    diffusers = pytest.importorskip('diffusers')
    betas = np.linspace(0.001, 0.02, 100).tolist()
    theirs = diffusers.DDIMScheduler(trained_betas=betas, num_train_timesteps=100).alphas_cumprod
    ours = build('schedules', dict(name='trained_betas', betas=betas)).level(jnp.arange(100.0))
    np.testing.assert_allclose(ours.alpha**2, theirs, rtol=1e-5)


@pytest.mark.parametrize('betas', [[0.1], [0.1, 0.0], [1.0, 0.1], [0.1, float('nan')]])
def test_betas_are_between_0_and_1(betas):
    with pytest.raises(ValueError, match=r'betas must be|at least 2') as error:
        build('schedules', dict(name='trained_betas', betas=betas))
    assert '\n' not in str(error.value)
