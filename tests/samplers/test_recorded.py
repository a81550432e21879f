"""Samplers step by step against trajectories recorded from k-diffusion, ComfyUI and CompVis (fixtures/README.md)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.diffusion import aliases, grids, noise
from ldm_jax.diffusion.sampling import sample
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import NoiseLevel
from tests import oracles
from tests.tiers import fast

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'
CHURN = dict(s_churn=3.0, s_tmin=0.1, s_tmax=9.0, s_noise=1.003)
K_DIFFUSION = {
    'euler': dict(name='euler'),
    'euler_churn': dict(name='euler', **CHURN),
    'heun': dict(name='heun'),
    'heun_churn': dict(name='heun', **CHURN),
    'dpm2': dict(name='dpm2'),
    'dpm2_churn': dict(name='dpm2', **CHURN),
    **{f'lms_{order}': dict(name='lms', max_order=order) for order in (2, 4)},
    'dpmpp_2m': dict(name='dpmpp_2m'),
}
COMFYUI = {
    'gradient_estimation': dict(name='gradient_estimation'),
    'gradient_estimation_1.3': dict(name='gradient_estimation', ge_gamma=1.3),
    'res_multistep': dict(name='res_multistep'),
    **{
        f'{name}_{order}': dict(name=name, max_order=order)
        for name in ('ipndm', 'ipndm_v')
        for order in (3, 4)
    },
    'heunpp2': dict(name='heunpp2'),
    'heunpp2_churn': dict(name='heunpp2', **CHURN),
}
SOLVERS = {
    **{f'dpm_fast_{steps}': (dict(name='dpm_fast'), steps) for steps in (2, 3, 7, 9)},
    'dpm_fast_8_eta': (dict(name='dpm_fast', eta=0.6, s_noise=1.1), 8),
    'adaptive_3': (dict(name='dpm_adaptive'), 1),
    'adaptive_2': (dict(name='dpm_adaptive', max_order=2, rtol=0.02, atol=0.001), 1),
    'adaptive_pid': (
        dict(
            name='dpm_adaptive',
            rtol=0.002,
            atol=0.0005,
            h_init=0.3,
            pcoeff=0.2,
            icoeff=0.7,
            dcoeff=0.1,
            accept_safety=0.9,
        ),
        1,
    ),
    'adaptive_eta': (dict(name='dpm_adaptive', eta=0.5, s_noise=1.01), 1),
}


def variance_preserving(sigmas):
    """The levels of these sigma / alpha with alpha^2 + sigma^2 = 1."""
    alpha = 1 / jnp.sqrt(1 + jnp.asarray(sigmas) ** 2)
    return NoiseLevel(t=jnp.zeros_like(alpha), alpha=alpha, sigma=alpha * sigmas)


def denoise(x, level):
    alpha, sigma = (jnp.reshape(a, (-1, 1, 1)) for a in (level.alpha, level.sigma))
    y, spread = x / alpha, 1 + (sigma / alpha) ** 2
    return 0.8 * jnp.tanh(1.3 * y / jnp.sqrt(spread) + 0.2) + 0.1 * y / spread


@pytest.mark.slow
@pytest.mark.parametrize('case', [*K_DIFFUSION, *COMFYUI])
def test_steps_of_any_scale_are_those_of_the_variance_exploding_original(case):
    recorded = np.load(FIXTURES / ('k_diffusion.npz' if case in K_DIFFUSION else 'comfyui.npz'))
    with oracles.float64():
        sampler = build.build('samplers', (K_DIFFUSION | COMFYUI)[case])
        levels = variance_preserving(recorded['sigmas'])
        x = levels.alpha[0] * recorded['x']
        seen = oracles.trajectory(sampler, denoise, x, levels, oracles.keys(x))
        ours = seen / levels.alpha[1:, None, None, None]
        for step, (a, b) in enumerate(zip(ours, recorded[case], strict=True)):
            assert oracles.relative_error(a, b) < 1e-8, step


@pytest.mark.slow
@pytest.mark.parametrize('case', SOLVERS)
def test_solvers_end_where_the_original_does(case):
    recorded = np.load(FIXTURES / 'k_diffusion.npz')
    spec, steps = SOLVERS[case]
    with oracles.float64():
        levels = variance_preserving(np.geomspace(14.6, 0.03, steps + 1))
        x = levels.alpha[0] * recorded['x']
        with jax.disable_jit():
            out = sample(build.build('samplers', spec), denoise, x, levels, oracles.keys(x))
        assert oracles.relative_error(out / levels.alpha[-1], recorded[case]) < 1e-8


def test_the_recorded_noise_is_that_of_our_keys():
    recorded = np.load(FIXTURES / 'k_diffusion.npz')
    with oracles.float64():
        keys = oracles.keys(recorded['x'])
        fresh = [noise.normal(noise_keys(keys, i), jnp.asarray(recorded['x'])) for i in (0, 5)]
        np.testing.assert_array_equal(fresh, recorded['noise'][[0, 5]])


def noise_keys(keys, i):
    return jax.vmap(jax.random.fold_in, (0, None))(keys, i)


@pytest.mark.parametrize('spec', [dict(name='plms'), dict(name='pndm', skip_prk_steps=True)])
@pytest.mark.parametrize('steps', [2, 10])
def test_plms_is_that_of_compvis(steps, spec):
    recorded = np.load(FIXTURES / 'compvis.npz')

    def denoise(x, level):
        return (x - level.sigma * jnp.tanh(x * (1 + level.t / 1000))) / level.alpha

    with oracles.float64():
        x = jnp.asarray(recorded['x'])
        levels = grids.named('leading')(Schedule(), steps)
        ours = oracles.trajectory(build.build('samplers', spec), denoise, x, levels, oracles.keys(x))
        for step, (a, b) in enumerate(zip(ours, recorded[f'plms_{steps}'], strict=True)):
            assert oracles.relative_error(a, b) < 1e-8, step


@pytest.mark.parametrize('steps', fast(2, [3, 2, 9, 15, 14, 20, 27]))
def test_dpm_solver_is_that_of_compvis(steps):
    """With its own end above zero, and a last step of order 1 below 15 steps."""
    recorded = np.load(FIXTURES / 'compvis.npz')

    def denoise(x, level):
        return (x - level.sigma * jnp.tanh(x * (1 + level.t / 1000))) / level.alpha

    with oracles.float64():
        x = jnp.asarray(recorded['x'])
        spec, grid = aliases.resolve('dpm_solver')
        levels = grids.named(grid)(Schedule(), steps)
        ours = oracles.trajectory(build.build('samplers', spec), denoise, x, levels, oracles.keys(x))[-1]
        # Between whole times it interpolates log alpha, and we log_snr.
        tolerance = 1e-8 if 999 % steps == 0 else 1e-5
        assert oracles.relative_error(ours, recorded[f'dpm_solver_{steps}']) < tolerance
