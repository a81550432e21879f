"""What every sampler with noise must do: reach the data's distribution, and be its counterpart without noise."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldm_jax import build
from ldm_jax.diffusion import restart_levels
from ldm_jax.diffusion.noise import image_keys
from ldm_jax.diffusion.sampling import sample
from ldm_jax.samplers import lcm
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import NoiseLevel
from tests import oracles
from tests.walks import levels_of

# Data: two correlated Gaussians in the plane.
WEIGHTS = np.array([0.3, 0.7])
MEANS = np.array([[-1.0, 0.5], [0.8, 0.3]])
COVARIANCES = np.array([[[0.3, 0.2], [0.2, 0.4]], [[0.2, -0.1], [-0.1, 0.1]]])

NOISE = {'eta': (0.5, 1.0), 's_churn': (10.0,)}  # knobs, and values at which to look
SHAPE, STEPS = (8, 1500, 2), 120


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The best x0_hat of the plane's data, [B, N, 2]; guided by nothing."""

    def __call__(self, x, level):
        if level.alpha.ndim:
            return jax.vmap(self)(x, level)
        x0s, densities = [], []
        for weight, mean, covariance in zip(WEIGHTS, MEANS, COVARIANCES, strict=True):
            noisy = level.alpha**2 * covariance + level.sigma**2 * jnp.eye(2)
            (a, b), (c, d) = noisy
            inverse = jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)
            away = (x - level.alpha * mean) @ inverse
            x0s.append(mean + level.alpha * away @ covariance)
            square = jnp.sum(away * (x - level.alpha * mean), -1)
            densities.append(jnp.log(weight) - square / 2 - jnp.log(a * d - b * c) / 2)
        share = jax.nn.softmax(jnp.stack(densities), 0)
        return sum(s[..., None] * x0 for s, x0 in zip(share, x0s, strict=True))

    def both(self, x, level):
        return self(x, level), self(x, level)


def marginal(level):
    """Mean [2] and covariance [2, 2] of x at a level."""
    mean = WEIGHTS @ MEANS
    spread = np.einsum('k,kij->ij', WEIGHTS, COVARIANCES + np.einsum('ki,kj->kij', MEANS, MEANS))
    return level.alpha * mean, level.alpha**2 * (spread - np.outer(mean, mean)) + level.sigma**2 * np.eye(2)


def draw(level):
    """x of SHAPE from the marginal at a level."""
    generator = np.random.default_rng(0)
    which = generator.choice(2, SHAPE[:-1], p=WEIGHTS)
    roots = np.linalg.cholesky(COVARIANCES)[which]
    x0 = MEANS[which] + np.einsum('...ij,...j->...i', roots, generator.standard_normal(SHAPE))
    return jnp.asarray(level.alpha * x0 + level.sigma * generator.standard_normal(SHAPE), jnp.float32)


def at(levels, i):
    return jax.tree.map(lambda a: a[i], levels)


def fields(name):
    module = importlib.import_module(f'ldm_jax.samplers.{name}')
    return {field.name for field in dataclasses.fields(module.Sampler)}


def noisy():
    """Samplers that draw, but for the one whose denoiser is a consistency model."""
    for name in build.names('samplers'):
        knobs = fields(name) & NOISE.keys()
        if (knobs or build.build('samplers', dict(name=name)).order == 0) and name != 'lcm':
            yield name


def assert_distributed(x, level):
    """x [B, N, 2], 12,000 points: within five standard errors, and what a first-order method misses by."""
    x = np.asarray(x, np.float64).reshape(-1, 2)
    mean, covariance = marginal(level)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(x.mean(0) / scale, mean / scale, atol=0.055)
    np.testing.assert_allclose(
        np.cov(x.T) / np.outer(scale, scale), covariance / np.outer(scale, scale), atol=0.085
    )
    # The Gaussians have kept their weights: the line x_0 = 0 parts them.
    spreads = np.sqrt(level.alpha**2 * COVARIANCES[:, 0, 0] + level.sigma**2)
    left = WEIGHTS @ stats.norm.cdf(0, level.alpha * MEANS[:, 0], spreads)
    np.testing.assert_allclose(np.mean(x[:, 0] < 0), left, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize('name', list(noisy()))
def test_the_distribution_is_that_of_the_data_at_any_amount_of_noise_in_one_program(name):
    levels = Schedule().level(jnp.linspace(999.0, 40.0, STEPS + 1))
    x = draw(at(levels, 0))
    run = jax.jit(lambda sampler, x, keys: sample(sampler, Mixture(), x, levels, keys))
    knobs = sorted(fields(name) & NOISE.keys())
    for settings in [{knob: value} for knob in knobs for value in NOISE[knob]] or [{}]:
        out = run(build.build('samplers', dict(name=name, **settings)), x, oracles.keys(x, 1))
        assert_distributed(out, at(levels, -1))
    assert run._cache_size() == 1


@pytest.mark.slow
def test_the_rule_for_flows_reaches_the_distribution_on_flow_levels():
    levels = levels_of(np.geomspace(20.0, 0.1, STEPS + 1), 'flow')
    levels = jax.tree.map(lambda a: a.astype(jnp.float32), levels)
    x = draw(at(levels, 0))
    sampler = build.build('samplers', dict(name='euler_ancestral', flow=True))
    assert_distributed(sample(sampler, Mixture(), x, levels, oracles.keys(x, 1)), at(levels, -1))


@pytest.mark.slow
@pytest.mark.parametrize('gamma', [0.0, 0.02])
def test_tcd_reaches_the_distribution_by_many_small_climbs(gamma):
    levels = restart_levels.tcd(Schedule(), Schedule().level(jnp.linspace(999.0, 40.0, STEPS + 1)), gamma)
    x = draw(at(levels, 0))
    out = sample(build.build('samplers', dict(name='tcd')), Mixture(), x, levels, oracles.keys(x, 1))
    assert_distributed(out, at(levels, -1))


def test_restarts_keep_the_distribution():
    levels = Schedule().level(jnp.linspace(999.0, 40.0, 41))
    levels = restart_levels.restarts(Schedule(), levels, low=0.3, high=3.0, steps=20, times=2)
    x = draw(at(levels, 0))
    out = sample(build.build('samplers', dict(name='restart')), Mixture(), x, levels, oracles.keys(x, 1))
    assert_distributed(out, at(levels, -1))


@pytest.mark.parametrize('num_steps', [1, 4])
def test_lcm_with_an_exact_consistency_function_is_exact_in_any_number_of_steps(num_steps):
    mean, std = 0.4, 0.7

    def jump(x, level):  # to clean data along the probability-flow ODE, of data N(mean, std^2)
        return mean + std / jnp.sqrt(level.alpha**2 * std**2 + level.sigma**2) * (x - level.alpha * mean)

    levels = Schedule().level(jnp.linspace(999.0, 400.0, num_steps))
    levels = jax.tree.map(lambda a, end: jnp.append(a, end), levels, NoiseLevel(t=0.0, alpha=1.0, sigma=0.0))
    first = at(levels, 0)
    x = first.alpha * mean + jnp.hypot(first.alpha * std, first.sigma) * jax.random.normal(
        jax.random.key(0), (4, 10000)
    )
    out = sample(lcm.Sampler(), jump, x, levels, oracles.keys(x, 1))
    np.testing.assert_allclose([out.mean(), out.std()], [mean, std], atol=0.015)


COUNTERPARTS = [
    (dict(name='euler_ancestral', eta=0.0), dict(name='euler')),
    (dict(name='euler_ancestral', eta=0.0, flow=True), dict(name='euler')),  # on levels of a flow
    (dict(name='euler_ancestral', eta=0.6), dict(name='ddim', eta=0.6)),
    (dict(name='ddpm'), dict(name='ddim', eta=1.0)),
    (dict(name='tcd'), dict(name='ddim')),
    (dict(name='restart'), dict(name='heun')),
    (dict(name='dpm2_ancestral', eta=0.0), dict(name='dpm2')),
    (dict(name='dpmpp_sde', eta=0.0), dict(name='dpmpp_2s_ancestral', eta=0.0)),
    (dict(name='seeds_2', eta=0.0), dict(name='dpmpp_2s_ancestral', eta=0.0)),
    (dict(name='dpmpp_2m_sde', eta=0.0), dict(name='dpmpp_2m')),
    (dict(name='er_sde', eta=0.0, max_order=1), dict(name='euler')),
    (dict(name='euler_cfg_pp', eta=0.6), dict(name='euler_ancestral', eta=0.6)),
    (dict(name='dpmpp_2m_cfg_pp'), dict(name='dpmpp_2m')),
    (dict(name='dpmpp_2s_ancestral_cfg_pp'), dict(name='dpmpp_2s_ancestral')),
    (dict(name='gradient_estimation_cfg_pp'), dict(name='gradient_estimation')),
]


@pytest.mark.slow
@pytest.mark.parametrize(('one', 'other'), COUNTERPARTS, ids=lambda spec: spec['name'])
def test_without_its_noise_or_guidance_it_is_its_counterpart(one, other):
    with oracles.float64():
        levels = levels_of([20.0, 5.0, 2.0, 1.0, 0.4, 0.1, 0.0], 'flow' if 'flow' in one else 'preserving')
        x = jnp.linspace(-2, 2, 12).reshape(2, 3, 2)
        ours, theirs = (
            sample(build.build('samplers', spec), Mixture(), x, levels, oracles.keys(x))
            for spec in (one, other)
        )
        assert oracles.relative_error(ours, theirs) < 1e-12


STEPWISE = [name for name in noisy() if not hasattr(build.build('samplers', dict(name=name)), 'solve')]
QUIET = ['lcm', 'restart', 'tcd', 'dpmpp_2m_cfg_pp', 'gradient_estimation_cfg_pp']


@pytest.mark.slow
@pytest.mark.parametrize('name', STEPWISE + QUIET)
def test_finite_from_pure_noise_to_clean_data_in_float32(name):
    levels = Schedule().level(jnp.linspace(980.0, 20.0, 5))
    start, end = NoiseLevel(t=999.0, alpha=0.0, sigma=1.0), NoiseLevel(t=0.0, alpha=1.0, sigma=0.0)
    levels = jax.tree.map(lambda a, *ends: jnp.r_[ends[0], a, ends[1]], levels, start, end)
    x = draw(at(levels, 0))[:, :4]
    for knobs in [{'eta': 0.0}, {'eta': 1.0}] if 'eta' in fields(name) else [{}]:
        sampler = build.build('samplers', dict(name=name, **knobs))
        out = sample(sampler, Mixture(), x, levels, oracles.keys(x))
        assert np.isfinite(out).all()
        assert abs(out).max() < 5  # of data about 1: nothing has grown on the way


@pytest.mark.parametrize('name', [name for name in build.names('samplers') if name.endswith('_cfg_pp')])
def test_cfg_pp_without_guidance_says_what_it_needs(name):
    x, levels = jnp.ones((2, 3)), Schedule().level(jnp.array([500.0, 400.0]))
    with pytest.raises(ValueError, match="no method 'both'"):
        sample(build.build('samplers', dict(name=name)), lambda x, level: x, x, levels, oracles.keys(x))


@pytest.mark.slow
def test_an_image_has_its_noise_whatever_its_batch():
    sampler = build.build('samplers', dict(name='dpmpp_sde'))
    levels = Schedule().level(jnp.linspace(999.0, 100.0, 4))
    x, keys = draw(at(levels, 0))[:3, :4], image_keys(jnp.arange(3))
    alone = sample(sampler, Mixture(), x[1:2], levels, keys[1:2])
    np.testing.assert_allclose(sample(sampler, Mixture(), x, levels, keys)[1], alone[0], rtol=1e-5)
