"""What every sampler must do, with denoisers whose answers are known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from ldm_jax import build
from ldm_jax.diffusion.guidance import Guided
from ldm_jax.diffusion.sampling import sample
from ldm_jax.schedules.scaled_linear import Schedule
from tests.oracles import QUICK, keys

# CFG++ needs two predictions at a time; test_stochastic_samplers.py has it, and all that draw noise by default.
NAMES = [name for name in build.names('samplers') if not name.endswith('_cfg_pp')]
STOCHASTIC = {
    'ddpm', 'dpm2_ancestral', 'dpmpp_2m_sde', 'dpmpp_2s_ancestral', 'dpmpp_3m_sde', 'dpmpp_sde', 'er_sde',
    'euler_ancestral', 'lcm', 'restart', 'sa_solver', 'seeds_2', 'seeds_3', 'tcd',
}  # fmt: skip
# Their low-order start, or steps of their own, hide the order on this grid; test_multistep.py has the first three.
ELSEWHERE = {'deis', 'lms', 'ipndm_v', 'dpm_fast', 'dpm_adaptive'}
MEAN, STD = 0.4, 0.7  # of one-dimensional Gaussian data


def gaussian_denoiser(x, level):
    """The best x0_hat for data drawn from N(MEAN, STD^2)."""
    gain = level.alpha * STD**2 / (level.alpha**2 * STD**2 + level.sigma**2)
    return MEAN + gain * (x - level.alpha * MEAN)


def gaussian_flow(x, here, there):
    """Where the probability-flow ODE takes x exactly: the same quantile of the marginal at the lower level."""

    def spread(level):
        return jnp.sqrt(level.alpha**2 * STD**2 + level.sigma**2)

    return there.alpha * MEAN + spread(there) / spread(here) * (x - here.alpha * MEAN)


@pytest.mark.parametrize('name', NAMES)
def test_perfect_denoiser_keeps_alpha_x0_plus_sigma_unit_noise(name):  # deterministic or not
    x0, eps = 0.3, jax.random.normal(jax.random.key(0), (64, 256))
    levels = Schedule().level(jnp.linspace(900, 200, 6))
    x = levels.alpha[0] * x0 + levels.sigma[0] * eps
    sampler = build.build('samplers', dict(name=name))
    out = sample(sampler, lambda x, level: jnp.full_like(x, x0), x, levels, keys(x, 1))
    noise = (out - levels.alpha[-1] * x0) / levels.sigma[-1]
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03


@pytest.mark.parametrize('name', NAMES)
def test_the_last_step_to_clean_data_is_the_denoisers_answer_and_finite(name):
    level = Schedule().level(jnp.array([500.0, 20.0]))
    clean = jax.tree.map(lambda a, end: jnp.append(a, end), level, type(level)(t=0.0, alpha=1.0, sigma=0.0))
    out = sample(
        build.build('samplers', dict(name=name)),
        lambda x, level: 0.25 + 0 * x,
        jnp.ones((2, 3)),
        clean,
        keys(jnp.ones(2)),
    )
    np.testing.assert_allclose(out, 0.25, atol=1e-6)


STEPS = 5
# How many more evaluations than steps a run to clean data takes: from the papers' algorithms.
EXTRA = dict.fromkeys(
    ['dpm2', 'dpm2_ancestral', 'dpmpp_2s_ancestral', 'dpmpp_2s_ancestral_cfg_pp', 'dpmpp_sde', 'heun', 'restart',
     'seeds_2'],
    STEPS - 1,  # two in each step but the last
) | dict(
    seeds_3=2 * (STEPS - 1),
    heunpp2=2 * (STEPS - 2) + 1,  # three, but two in the last but one
    plms=1,  # two in the first
    pndm=9,  # four in each of the first three
)  # fmt: skip
SPECS = [(dict(name=name), EXTRA.get(name, 0)) for name in build.names('samplers')]
SPECS += [(dict(name='pndm', skip_prk_steps=True), 1), (dict(name='sa_solver', pece=True), STEPS - 1)]


def primitives(jaxpr):
    """Names of all primitives of a program, those of its loops and branches too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jaxprs_in_params(equation.params):
            yield from primitives(inner)


@pytest.mark.parametrize(('spec', 'extra'), SPECS, ids=str)
def test_the_network_is_in_the_program_once_and_evaluated_as_often_as_published(spec, extra):
    name, calls = spec['name'], []

    def network(x, level):
        jax.debug.callback(lambda: calls.append(1))
        return gaussian_denoiser(x, level) + 0 * jax.lax.lgamma(x)

    denoise = Guided(lambda x, level: (network(x, level),) * 2) if name.endswith('_cfg_pp') else network
    levels = Schedule().level(jnp.linspace(900.0, 0.0, STEPS + 1))
    levels = levels.replace(alpha=levels.alpha.at[-1].set(1.0), sigma=levels.sigma.at[-1].set(0.0))
    sampler, x = build.build('samplers', spec), jnp.ones(3)
    run = jax.jit(functools.partial(sample, sampler, denoise)).trace(x, levels, keys(x))
    assert list(primitives(run.jaxpr.jaxpr)).count('lgamma') == 1
    jax.block_until_ready(run.lower().compile(compiler_options=QUICK)(x, levels, keys(x)))
    jax.effects_barrier()
    if not name.startswith('dpm_'):  # whose steps are their own
        assert len(calls) == STEPS + extra
