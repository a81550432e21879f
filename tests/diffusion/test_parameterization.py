"""One equation for every parameterization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import parameterization
from ldm_jax.diffusion.denoiser import denoiser
from ldm_jax.diffusion.process import add_noise, per_example
from ldm_jax.schedules import edm as edm_schedule
from ldm_jax.schedules import flow as flow_schedule
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import Cond, NoiseLevel
from tests import oracles


@pytest.fixture
def noisy():
    with oracles.float64():
        x0, eps = (jax.random.normal(jax.random.key(k), (5, 4, 4, 2)) for k in (0, 1))
        level = Schedule().level(jnp.array([0.0, 10.0, 500.0, 900.0, 999.0]))
        yield x0, eps, level, add_noise(x0, eps, level)


EVERY = ['eps', 'v', 'x0', 'flow', 'edm', 'edm_v', dict(name='edm', sigma_data=1.3)]


@pytest.mark.parametrize('name', EVERY, ids=str)
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
    assert oracles.relative_error(target('flow'), eps - x0) < 1e-9


@pytest.mark.parametrize('name', ['v', 'x0', 'flow', 'edm'])
def test_pure_noise_has_a_finite_prediction_and_a_target(name):
    level = NoiseLevel(t=jnp.array(999.0), alpha=jnp.array(0.0), sigma=jnp.array(1.0))
    x0, eps = jnp.array([0.3, -2.0]), jnp.array([1.0, 0.5])
    s = parameterization.named(name)(level)
    target = parameterization.target(s, add_noise(x0, eps, level), x0)
    expected = {'v': -x0, 'x0': x0, 'flow': eps - x0, 'edm': x0 / 0.5}
    np.testing.assert_allclose(target, expected[name], rtol=1e-6)


@pytest.mark.parametrize('name', ['eps', 'v', 'x0', 'flow', 'edm'])
def test_clean_data_are_their_own_prediction_whatever_the_network_says(name):
    level = NoiseLevel(t=jnp.array(0.0), alpha=jnp.array(1.0), sigma=jnp.array(0.0))
    s = parameterization.named(name)(level)
    kept = 0.0 if name == 'x0' else 1.0  # x0's network says itself what the image is
    np.testing.assert_allclose([s.c_skip, s.c_out], [kept, 1 - kept], atol=1e-7)


def test_edm_scales_inputs_and_targets_to_unit_variance():
    with oracles.float64():
        level = edm_schedule.Schedule().level(jnp.linspace(0, 999, 7))
        s = parameterization.edm(level, sigma_data=0.7)
        np.testing.assert_allclose(s.c_in**2 * (0.7**2 + level.sigma**2), 1, rtol=1e-12)
        # the target's variance, of independent x0 and eps: c_out^2 = (1 - c_skip)^2 sd^2 + c_skip^2 sigma^2
        spread = (1 - s.c_skip) ** 2 * 0.7**2 + s.c_skip**2 * level.sigma**2
        np.testing.assert_allclose(s.c_out**2, spread, rtol=1e-9)
        np.testing.assert_allclose(s.c_noise, jnp.log(level.sigma) / 4, rtol=1e-12)


def test_edm_is_the_same_denoiser_at_every_scale_of_x():
    with oracles.float64():
        variance_preserving = Schedule().level(jnp.array([10.0, 500.0]))
        ratio = variance_preserving.sigma / variance_preserving.alpha
        exploding = NoiseLevel(t=variance_preserving.t, alpha=jnp.ones(2), sigma=ratio)
        first, second = (parameterization.edm(a) for a in (variance_preserving, exploding))
        np.testing.assert_allclose(first.c_skip * variance_preserving.alpha, second.c_skip, rtol=1e-12)
        np.testing.assert_allclose(first.c_in * variance_preserving.alpha, second.c_in, rtol=1e-12)
        np.testing.assert_allclose(first.c_out, second.c_out, rtol=1e-12)


def test_flow_tells_the_network_the_share_of_noise():
    s = parameterization.flow(flow_schedule.Schedule(shift=3.0).level(jnp.array([499.0, 999.0])))
    np.testing.assert_allclose(s.c_noise, [750, 1000], rtol=1e-6)


def test_the_network_is_given_the_schedules_time(noisy):
    *_, level, x = noisy
    denoise = denoiser(lambda x, t, cond: per_example(t, x) + 0 * x, parameterization.named('x0'), Cond())
    np.testing.assert_allclose(denoise(x, level)[:, 0, 0, 0], level.t)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'epsilon'.*'eps'"):
        parameterization.named('epsilon')
