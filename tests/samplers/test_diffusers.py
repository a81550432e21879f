"""Samplers step by step against the schedulers of diffusers, on the same levels and the same network in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.types import NoiseLevel
from tests import oracles
from tests.tiers import fast

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')

X = np.random.default_rng(0).standard_normal((2, 3))


def levels(steps, to_clean):
    """Variance-preserving, evenly spaced in nothing; the last has sigma 0 if to_clean."""
    rho = np.linspace(14.0 ** (1 / 5), 0.04 ** (1 / 5), steps + 1 - to_clean) ** 5
    rho = np.append(rho, [0.0] * to_clean)
    alpha = 1 / np.sqrt(1 + rho**2)
    return NoiseLevel(t=jnp.arange(steps + 1.0), alpha=jnp.asarray(alpha), sigma=jnp.asarray(rho * alpha))


def network(x, level, tanh):
    return tanh(x * (1 + level.sigma)) + x / 3  # predicts eps


def denoise(x, level):
    norm = jnp.hypot(level.alpha, level.sigma)  # not 1 for a level of the sampler's own
    x, level = x / norm, level.replace(alpha=level.alpha / norm, sigma=level.sigma / norm)
    return (x - level.sigma * network(x, level, jnp.tanh)) / level.alpha


class DoubleTorch:
    """torch for a module whose float32 should be float64: DPM-Solver's step rounds x to float32."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def assert_parity(spec, theirs, table):
    """Each step of ours is theirs; `theirs` has its times set, of which only the number counts."""
    ours = oracles.trajectory(build.build('samplers', spec), denoise, jnp.asarray(X), table, oracles.keys(X))
    x = torch.from_numpy(X)
    assert len(theirs.timesteps) == len(ours)
    for i, t in enumerate(theirs.timesteps):
        level = NoiseLevel(t=i, alpha=float(table.alpha[i]), sigma=float(table.sigma[i]))
        x = theirs.step(network(x, level, torch.tanh), t, x).prev_sample
        assert x.dtype == torch.float64
        assert oracles.relative_error(ours[i], x.numpy()) < 1e-8, i


MULTISTEP = (
    dict(name='dpm_solver_multistep', max_order=3),
    'DPMSolverMultistepScheduler',
    dict(solver_order=3),
)
CASES = [
    (*MULTISTEP, 7, True),
    (*MULTISTEP, 7, False),
    (*MULTISTEP, 17, False),
    (
        dict(name='dpm_solver_multistep', max_order=3, lower_order_final=False),
        'DPMSolverMultistepScheduler',
        dict(solver_order=3, lower_order_final=False),
        6,
        False,
    ),
    (dict(name='dpmpp_2m'), 'DPMSolverMultistepScheduler', dict(solver_order=2), 6, True),
    (dict(name='deis'), 'DEISMultistepScheduler', dict(solver_order=3), 7, False),
    (dict(name='deis'), 'DEISMultistepScheduler', dict(solver_order=3), 17, False),
    (dict(name='deis', max_order=2), 'DEISMultistepScheduler', dict(solver_order=2), 7, False),
    *(
        (
            dict(name='unipc', max_order=order, variant=variant, lower_order_final=final),
            'UniPCMultistepScheduler',
            dict(solver_order=order, solver_type=variant, lower_order_final=final),
            8,
            to_clean,
        )
        for order, variant, final, to_clean in [
            (1, 'bh2', True, True),
            (2, 'bh2', True, True),
            (3, 'bh2', True, True),
            (2, 'bh1', False, False),
            (3, 'bh1', False, False),
            (3, 'bh2', False, False),
        ]
    ),
    *(
        (
            dict(
                name='dpm_solver_singlestep',
                max_order=order,
                variant=variant,
                solver_type=kind,
                lower_order_final=final,
            ),
            'DPMSolverSinglestepScheduler',
            dict(solver_order=order, algorithm_type=variant, solver_type=kind, lower_order_final=final),
            steps,
            to_clean,
        )
        for order, variant, kind, final, steps, to_clean in [
            (1, 'dpmsolver++', 'midpoint', False, 4, True),
            (2, 'dpmsolver++', 'midpoint', False, 6, True),
            (2, 'dpmsolver++', 'heun', True, 7, False),
            (2, 'dpmsolver', 'midpoint', True, 6, False),
            (3, 'dpmsolver++', 'midpoint', True, 9, True),
            (3, 'dpmsolver++', 'heun', False, 9, False),
            (3, 'dpmsolver', 'midpoint', True, 8, False),
            (3, 'dpmsolver', 'heun', True, 7, False),
        ]
    ),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::FutureWarning')
@pytest.mark.parametrize(('spec', 'scheduler', 'settings', 'steps', 'to_clean'), CASES)
def test_the_trajectory_is_that_of_diffusers(spec, scheduler, settings, steps, to_clean, monkeypatch):
    from diffusers.schedulers import scheduling_dpmsolver_multistep

    monkeypatch.setattr(scheduling_dpmsolver_multistep, 'torch', DoubleTorch())
    if not scheduler.startswith('DEIS'):
        settings = settings | dict(final_sigmas_type='zero' if to_clean else 'sigma_min')
    theirs = getattr(diffusers, scheduler)(**settings)
    theirs.set_timesteps(steps)
    with oracles.float64():
        table = levels(steps, to_clean)
        theirs.sigmas = torch.from_numpy(np.array(table.sigma / table.alpha))
        assert_parity(spec, theirs, table)


@pytest.mark.parametrize('steps', fast(1, [5, 1, 2, 17, 50]))
def test_ipndm_is_that_of_diffusers(steps):
    theirs = diffusers.IPNDMScheduler()
    theirs.set_timesteps(steps)
    with oracles.float64():
        table = levels(steps, False)
        theirs.alphas, theirs.betas = (torch.from_numpy(np.array(a)) for a in (table.alpha, table.sigma))
        step = theirs.step

        def from_eps(eps, t, x):  # it wants v, of which it takes eps = sigma x + alpha v
            i = theirs.step_index or 0
            return step((eps - theirs.betas[i] * x) / theirs.alphas[i], t, x)

        theirs.step = from_eps
        assert_parity(dict(name='ipndm'), theirs, table)


@pytest.mark.parametrize('steps', [5, 10])
def test_pndm_is_that_of_diffusers_where_log_snr_is_linear_in_time(steps):
    theirs = diffusers.PNDMScheduler(steps_offset=1, timestep_spacing='leading')
    with oracles.float64():
        log_snr = 9.0 - 0.014 * np.arange(1000)
        squares = 1 / (1 + np.exp(-log_snr))
        theirs.alphas_cumprod = torch.from_numpy(squares)
        theirs.final_alpha_cumprod = theirs.alphas_cumprod[0]
        theirs.set_timesteps(steps)
        times = np.append(np.arange(steps)[::-1] * (1000 // steps) + 1, 0)
        level = NoiseLevel(
            t=jnp.asarray(times), alpha=jnp.sqrt(squares[times]), sigma=jnp.sqrt(1 - squares[times])
        )
        ours = oracles.trajectory(
            build.build('samplers', dict(name='pndm')), denoise, jnp.asarray(X), level, oracles.keys(X)
        )

        def at(t):
            return NoiseLevel(t=t, alpha=squares[t] ** 0.5, sigma=(1 - squares[t]) ** 0.5)

        x, seen = torch.from_numpy(X), []
        for i, t in enumerate(theirs.timesteps.tolist()):
            x = theirs.step(network(x, at(t), torch.tanh), t, x).prev_sample
            if i >= 12 or i % 4 == 3:  # each of the first three steps is four of theirs
                seen.append(x.numpy())
        for step, (a, b) in enumerate(zip(ours, seen, strict=True)):
            assert oracles.relative_error(a, b) < 1e-8, step
