"""Stochastic samplers against k-diffusion's own trajectories, given the same noise (fixtures/README_stochastic.md)."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from tests import oracles
from tests.walks import levels_of, trajectory

FIXTURE = dict(np.load(pathlib.Path(__file__).parent / 'fixtures' / 'k_diffusion_stochastic.npz'))
KNOBS = dict(eta=0.8, s_noise=1.1)
CASES = {
    'euler_ancestral': dict(name='euler_ancestral'),
    'dpm2_ancestral': dict(name='dpm2_ancestral'),
    'dpmpp_2s_ancestral': dict(name='dpmpp_2s_ancestral'),
    'dpmpp_sde': dict(name='dpmpp_sde', r=0.4),
    'dpmpp_2m_sde_midpoint': dict(name='dpmpp_2m_sde'),
    'dpmpp_2m_sde_heun': dict(name='dpmpp_2m_sde', variant='heun'),
    'dpmpp_3m_sde': dict(name='dpmpp_3m_sde'),
}


def denoise(x, level):
    """The fixtures' network: of x / alpha and sigma / alpha, as theirs knows no alpha."""
    x, sigma = x / level.alpha, level.sigma / level.alpha
    return 0.9 * jnp.tanh(x / jnp.sqrt(1 + sigma**2)) + 0.1 * jnp.sin(x / (1 + sigma))


@pytest.mark.parametrize(
    ('case', 'kind'), [(case, 'preserving') for case in CASES] + [('dpmpp_sde', 'exploding')]
)
def test_the_trajectory_is_that_of_k_diffusion(case, kind):
    draws = 2 if case == 'dpmpp_sde' else 1
    with oracles.float64():
        levels = levels_of(FIXTURE['sigmas'], kind)
        ours = trajectory(
            build.build('samplers', CASES[case] | KNOBS),
            denoise,
            FIXTURE['x'] * float(levels.alpha[0]),
            levels,
            FIXTURE['noise'][:, :draws],
        )
        ours = ours / np.asarray(levels.alpha)[:, None, None]
    for mine, theirs in zip(ours, FIXTURE[case], strict=True):
        assert oracles.relative_error(mine, theirs) < 1e-8
