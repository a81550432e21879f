"""DDPM, SA-Solver, LCM and TCD against diffusers, step by step and with the same noise."""

from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import restart_levels
from ldm_jax.diffusion.consistency import boundary
from ldm_jax.samplers import ddpm, lcm, sa_solver, tcd
from ldm_jax.schedules.scaled_linear import Schedule
from ldm_jax.types import NoiseLevel
from tests import oracles
from tests.walks import trajectory

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear')
CLEAN = NoiseLevel(t=np.zeros(1), alpha=np.ones(1), sigma=np.zeros(1))


def table(times, end=None):
    """Levels of the times [S] and, behind them, `end` of leaves [1]."""
    levels = Schedule().level(np.asarray(times, np.float64))
    parts = [levels] if end is None else [levels, end]
    return NoiseLevel(
        **{name: np.concatenate([getattr(p, name) for p in parts]) for name in ('t', 'alpha', 'sigma')}
    )


def network(x, t):
    return (torch.tanh if isinstance(x, torch.Tensor) else jnp.tanh)(x * (1 + t / 1000))


def denoise(x, level):
    return (x - level.sigma * network(x, level.t)) / level.alpha


def reference(scheduler, x, noise, **settings):
    """x at each of the scheduler's levels; `noise` [S, B, ...], the next one each time that it asks."""
    scheduler.alphas_cumprod = torch.from_numpy(np.array(Schedule().level(jnp.arange(1000.0)).alpha ** 2))
    x = torch.from_numpy(x)
    found = [x]
    with mock.patch(f'{type(scheduler).__module__}.randn_tensor', side_effect=map(torch.from_numpy, noise)):
        for t in scheduler.timesteps.tolist():  # as tensors they would be float32 in c_skip and the network
            x = scheduler.step(network(x, t), t, x, **settings).prev_sample
            found.append(x)
    return np.stack(found)


def numbers(steps, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((2, 5)), generator.standard_normal((steps, 1, 2, 5))


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert oracles.relative_error(mine, other) < 1e-8


@pytest.mark.parametrize('variance', ['fixed_small', 'fixed_large'])
def test_ddpm(variance):
    scheduler = diffusers.DDPMScheduler(**BETAS, variance_type=variance, clip_sample=False)
    scheduler.set_timesteps(10)  # down to t = 0, from which the last step goes to clean data without noise
    x, noise = numbers(10)
    with oracles.float64():
        theirs = reference(scheduler, x, noise[:, 0])
        ours = trajectory(
            ddpm.Sampler(variance=variance), denoise, x, table(scheduler.timesteps, CLEAN), noise
        )
    assert_same(ours, theirs)


@pytest.mark.parametrize(('predictor', 'corrector', 'final'), [(2, 2, True), (3, 4, True), (1, 2, False)])
def test_sa_solver(predictor, corrector, final):
    scheduler = diffusers.SASolverScheduler(
        **BETAS, predictor_order=predictor, corrector_order=corrector, lower_order_final=final,
        tau_func=lambda t: torch.tensor(0.7 if 200 <= t <= 800 else 0.0, dtype=torch.float64),
    )  # fmt: skip
    scheduler.set_timesteps(9)
    x, noise = numbers(9)
    with oracles.float64():
        levels = table([*scheduler.timesteps, 0])
        scheduler.sigmas = torch.from_numpy(levels.sigma / levels.alpha)  # theirs are float32
        theirs = reference(scheduler, x, noise[:, 0])
        sampler = sa_solver.Sampler(
            eta=0.7, predictor=predictor, corrector=corrector, lower_order_final=final
        )
        ours = trajectory(sampler, denoise, x, levels, noise)
    # What they return is the prediction, and so is ours: the correction shows in the next one.
    assert_same(ours, theirs)


def test_lcm():
    scheduler = diffusers.LCMScheduler(**BETAS)
    scheduler.set_timesteps(4)
    x, noise = numbers(4)
    with oracles.float64():
        theirs = reference(scheduler, x, noise[:, 0])
        ours = trajectory(lcm.Sampler(), boundary(denoise), x, table(scheduler.timesteps, CLEAN), noise)
    assert_same(ours, theirs)


@pytest.mark.parametrize('gamma', [0.3, 1.0])
def test_tcd(gamma):
    scheduler = diffusers.TCDScheduler(**BETAS)
    scheduler.set_timesteps(5)
    x, noise = numbers(5)
    with oracles.float64():
        theirs = reference(scheduler, x, noise[:, 0], eta=gamma)
        levels = restart_levels.tcd(Schedule(), table([*scheduler.timesteps, 0]), gamma)
        climbing = np.repeat(noise, 2, 0)[1:-1]  # a pair of rows a step, down and up; the last one has no up
        ours = trajectory(tcd.Sampler(), denoise, x, levels, np.concatenate([noise[:1], climbing]))
    assert_same(ours[::2], theirs[:-1])
    assert_same(ours[-1:], theirs[-1:])
