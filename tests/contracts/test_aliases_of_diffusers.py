"""Each alias of a diffusers scheduler beside the class it names: same network, same noise, through the alias table."""

import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.diffusion import aliases, grids, stochastic
from ldm_jax.types import NoiseLevel
from tests import diffusers_schedulers as walks
from tests import oracles

pytest.importorskip('torch')
pytest.importorskip('diffusers')

STEPS = (1, 2, 5, 17, 50)
# The scheduler of Stable Diffusion's repositories, whose config another class takes over in its place.
STABLE_DIFFUSION = walks.BETAS | dict(
    set_alpha_to_one=False, skip_prk_steps=True, clip_sample=False, steps_offset=1, num_train_timesteps=1000
)
NAMES = [name for name in aliases.SAMPLERS if name.endswith('Scheduler')]
DRAWS = {  # those that draw noise, and how much more than once a step or less
    'DDPMScheduler', 'EulerAncestralDiscreteScheduler', 'KDPM2AncestralDiscreteScheduler', 'DPMSolverSDEScheduler',
    'SASolverScheduler', 'LCMScheduler', 'TCDScheduler',
}  # fmt: skip


def family(name):
    """The schedule and prediction of ours that a class is made for."""
    if name.startswith('FlowMatch'):
        return dict(name='flow'), 'flow'
    if name.startswith('EDM'):
        return dict(name='edm'), 'edm'
    return dict(name='scaled_linear'), 'eps'


def table_of(name, spec, grid, schedule, steps):
    sampler, made = build.build('samplers', spec), grids.named(grid)
    levels = (
        sampler.table if hasattr(sampler, 'table') else lambda schedule, grid, steps: grid(schedule, steps)
    )
    return levels(schedule, made, steps)


def noise_for(name, levels):
    """What the class draws, one after the other, where ours draws from its own keys."""
    count = len(levels.sigma) - 1
    if name == 'TCDScheduler':
        return [walks.noise_of_step(i) for i in range(1, count, 2)]  # rows down and up by turns
    if name != 'DPMSolverSDEScheduler':
        return [walks.noise_of_step(i) for i in range(count)]
    draws = []
    for i in range(count):
        here, there = (
            NoiseLevel(t=levels.t[j], alpha=levels.alpha[j], sigma=levels.sigma[j]) for j in (i, i + 1)
        )
        early, late = walks.noises_of_step(i, 2)
        share = float(stochastic.shared(stochastic.gap(here, there), 0.5))
        draws += [early, np.sqrt(share) * early + np.sqrt(1 - share) * late]
    return draws


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', [name for name in NAMES if name != 'IPNDMScheduler'])
def test_an_alias_does_what_its_class_does(name):
    spec, grid = aliases.resolve(name)
    kind, prediction = family(name)
    with oracles.float64(), walks.in_float64(name) as scheduler_class:
        schedule = build.build('schedules', kind)
        ours = walks.Ours(build.build('samplers', spec), schedule, prediction)
        for steps in STEPS:
            config = STABLE_DIFFUSION if kind['name'] == 'scaled_linear' else {}
            scheduler = scheduler_class.from_config(config)
            scheduler.set_timesteps(steps)
            levels = table_of(name, spec, grid, schedule, steps)
            x = walks.X / float(levels.alpha[0]) if name in walks.EXPLODING else walks.X
            expected = walks.theirs(scheduler, x, noise_for(name, levels) if name in DRAWS else ())
            assert oracles.relative_error(ours(walks.X, levels), expected) < 1e-5, steps


@pytest.mark.parametrize('gamma', [0.0, 0.3, 1.0])
def test_tcd_does_at_any_gamma(gamma):
    spec, grid = aliases.resolve('TCDScheduler')
    spec |= dict(gamma=gamma)
    with oracles.float64(), walks.in_float64('TCDScheduler') as scheduler_class:
        schedule = build.build('schedules', dict(name='scaled_linear'))
        ours = walks.Ours(build.build('samplers', spec), schedule)
        for steps in STEPS:
            scheduler = scheduler_class.from_config(STABLE_DIFFUSION)
            scheduler.set_timesteps(steps)
            levels = table_of('TCDScheduler', spec, grid, schedule, steps)
            expected = walks.theirs(scheduler, walks.X, noise_for('TCDScheduler', levels), eta=gamma)
            assert oracles.relative_error(ours(walks.X, levels), expected) < 1e-5, steps
