"""One equation for every parameterization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import parameterization
from ldm_jax.diffusion.denoiser import denoiser
from ldm_jax.diffusion.process import add_noise, per_example
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import Cond
from tests import oracles


@pytest.fixture
def noisy():
    with oracles.float64():
        x0, eps = (jax.random.normal(jax.random.key(k), (5, 4, 4, 2)) for k in (0, 1))
        level = Schedule().level(jnp.array([0.0, 10.0, 500.0, 900.0, 999.0]))
        yield x0, eps, level, add_noise(x0, eps, level)


@pytest.mark.parametrize('name', ['eps', 'v', 'x0'])
def test_a_network_that_outputs_the_target_gives_back_x0(name, noisy):
    x0, _, level, x = noisy
    chosen = parameterization.named(name)
    target = parameterization.target(chosen(level), x, x0)
    denoise = denoiser(lambda x, t, cond: target, chosen, Cond())
    assert oracles.relative_error(denoise(x, level), x0) < 1e-9


def test_targets_are_what_their_names_say(noisy):
    x0, eps, level, x = noisy

    def target(name):
        return parameterization.target(parameterization.named(name)(level), x, x0)

    assert oracles.relative_error(target('eps'), eps) < 1e-9
    assert oracles.relative_error(target('x0'), x0) < 1e-12
    v = per_example(level.alpha, x0) * eps - per_example(level.sigma, x0) * x0
    assert oracles.relative_error(target('v'), v) < 1e-9


def test_the_network_is_told_the_schedules_time(noisy):
    *_, level, x = noisy
    denoise = denoiser(lambda x, t, cond: per_example(t, x) + 0 * x, parameterization.named('x0'), Cond())
    np.testing.assert_allclose(denoise(x, level)[:, 0, 0, 0], level.t)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'epsilon'.*'eps'"):
        parameterization.named('epsilon')
