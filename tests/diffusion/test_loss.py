"""The denoising loss in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import loss, parameterization
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import Cond

X0 = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
DRAWS = loss.Draws(t=jnp.array([0, 400, 999]), eps=jax.random.normal(jax.random.key(1), X0.shape))


def losses(network, name):
    return loss.denoising(network, Schedule(), parameterization.named(name), X0, Cond(), DRAWS)


def test_a_network_that_knows_the_noise_has_no_loss():
    np.testing.assert_allclose(losses(lambda x, t, cond: DRAWS.eps, 'eps'), 0, atol=1e-6)


def test_a_network_that_is_off_by_one_has_loss_one_for_each_picture():
    np.testing.assert_allclose(losses(lambda x, t, cond: DRAWS.eps + 1, 'eps'), 1, rtol=1e-3)


def test_a_network_that_outputs_zero_pays_the_mean_square_of_its_target():
    expected = jnp.mean(X0**2, axis=(1, 2, 3))
    np.testing.assert_allclose(losses(lambda x, t, cond: jnp.zeros_like(x), 'x0'), expected, rtol=1e-5)


def test_a_network_sees_the_picture_with_its_noise():
    level = Schedule().level(DRAWS.t)
    alpha, sigma = level.alpha[:, None, None, None], level.sigma[:, None, None, None]
    seen = []
    losses(lambda x, t, cond: seen.append((x, t)) or x, 'v')
    np.testing.assert_allclose(seen[0][0], alpha * X0 + sigma * DRAWS.eps, rtol=1e-6)
    np.testing.assert_array_equal(seen[0][1], DRAWS.t)
