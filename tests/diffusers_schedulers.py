"""diffusers' schedulers in float64, walked with a network and with noise that a test gives; and ours beside them."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import build
from ldm_jax.diffusion import grids, noise, parameterization, stochastic
from ldm_jax.diffusion.denoiser import denoiser, on_schedule
from ldm_jax.diffusion.sampling import padded, sample
from ldm_jax.types import Cond, NoiseLevel
from tests import oracles
from tests.oracles import keys

X = np.random.default_rng(0).standard_normal((2, 4, 4, 3))
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear')
SCHEDULES = {'linear': 'linear', 'scaled_linear': 'scaled_linear', 'squaredcos_cap_v2': 'squared_cosine'}
# Where x is held over alpha, so that its noise is sigma / alpha.
EXPLODING = {
    'EulerDiscreteScheduler', 'EulerAncestralDiscreteScheduler', 'HeunDiscreteScheduler', 'LMSDiscreteScheduler',
    'KDPM2DiscreteScheduler', 'KDPM2AncestralDiscreteScheduler', 'DPMSolverSDEScheduler',
}  # fmt: skip
MODULES = {
    'DDIMScheduler': 'ddim', 'DDPMScheduler': 'ddpm', 'PNDMScheduler': 'pndm', 'LCMScheduler': 'lcm',
    'TCDScheduler': 'tcd', 'IPNDMScheduler': 'ipndm', 'EulerDiscreteScheduler': 'euler_discrete',
    'EulerAncestralDiscreteScheduler': 'euler_ancestral_discrete', 'HeunDiscreteScheduler': 'heun_discrete',
    'LMSDiscreteScheduler': 'lms_discrete', 'KDPM2DiscreteScheduler': 'k_dpm_2_discrete',
    'KDPM2AncestralDiscreteScheduler': 'k_dpm_2_ancestral_discrete', 'DPMSolverSDEScheduler': 'dpmsolver_sde',
    'DPMSolverMultistepScheduler': 'dpmsolver_multistep', 'DPMSolverSinglestepScheduler': 'dpmsolver_singlestep',
    'DEISMultistepScheduler': 'deis_multistep', 'UniPCMultistepScheduler': 'unipc_multistep',
    'SASolverScheduler': 'sasolver', 'EDMEulerScheduler': 'edm_euler',
    'EDMDPMSolverMultistepScheduler': 'edm_dpmsolver_multistep',
    'FlowMatchEulerDiscreteScheduler': 'flow_match_euler_discrete',
    'FlowMatchHeunDiscreteScheduler': 'flow_match_heun_discrete',
}  # fmt: skip


class _Double:
    """A module of numbers whose float32 is float64."""

    def __init__(self, module):
        self._module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self._module, name)


@contextlib.contextmanager
def in_float64(name: str) -> Iterator[type]:
    """The scheduler class of this name; inside, whatever it would round to float32 stays float64.

    torchsde, whose Brownian tree DPMSolverSDEScheduler draws from, need not be installed: its noise is given.
    """
    import torch

    stand_in = types.ModuleType('torchsde')
    if sys.modules.setdefault('torchsde', stand_in) is stand_in:
        module = importlib.import_module(f'diffusers.schedulers.scheduling_{MODULES[name]}')
        del sys.modules['torchsde']
    module = importlib.import_module(f'diffusers.schedulers.scheduling_{MODULES[name]}')
    with contextlib.ExitStack() as stack:
        for library in (torch, np):
            own = {'torch': 'torch', 'numpy': 'np'}[library.__name__]
            stack.enter_context(mock.patch.object(module, own, _Double(library), create=True))
        yield getattr(module, name)


def network(x, t):
    """A smooth function of x and t, for torch and jax alike."""
    tanh = jnp.tanh if isinstance(x, jax.Array) else sys.modules['torch'].tanh
    return tanh(x * (1 + t / 1000)) + x / 3


def theirs(scheduler, x: np.ndarray, drawn: Sequence[np.ndarray] = (), **settings) -> np.ndarray:
    """Where a scheduler, its timesteps set, takes x; `drawn` is what it draws, one after the other."""
    import torch

    draws = map(torch.from_numpy, drawn)
    module = sys.modules[type(scheduler).__module__]
    x = torch.from_numpy(x)
    with contextlib.ExitStack() as stack:
        given = dict(randn_tensor=dict(side_effect=draws))
        given['BrownianTreeNoiseSampler'] = dict(return_value=lambda *_: next(draws))
        for function, answer in given.items():
            stack.enter_context(mock.patch.object(module, function, create=True, **answer))
        for t in scheduler.timesteps:
            seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, 'scale_model_input') else x
            x = scheduler.step(network(seen, t), t, x, **settings).prev_sample
    assert x.dtype == torch.float64
    return x.numpy()


class Ours:
    """A sampler of ours with the same network, compiled once for all tables."""

    def __init__(self, sampler, schedule, prediction: str = 'eps'):
        def run(x, levels, count):
            found = denoiser(lambda x, t, cond: network(x, t), parameterization.named(prediction), Cond())
            return sample(sampler, on_schedule(found, schedule), x, levels, keys(X), count)

        self._run = jax.jit(run)

    def __call__(self, x: np.ndarray, levels) -> np.ndarray:
        return np.asarray(self._run(jnp.asarray(x), padded(levels, 101), len(levels.sigma) - 1))


def noises_of_step(i: int, num: int = 1) -> list[np.ndarray]:
    """What a sampler of ours draws in step i, where it draws `num` times."""
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys(X), i)
    parts = [step_keys] if num == 1 else noise.split(step_keys, num)
    return [np.array(noise.normal(part, jnp.asarray(X))) for part in parts]


def noise_for(name: str, levels: NoiseLevel) -> list[np.ndarray]:
    """What a class draws, one after the other, where ours draws from its own keys on these levels."""
    count = len(levels.sigma) - 1
    if name == 'TCDScheduler':
        return [draw for i in range(1, count, 2) for draw in noises_of_step(i)]  # rows down and up by turns
    if name != 'DPMSolverSDEScheduler':
        return [draw for i in range(count) for draw in noises_of_step(i)]
    draws = []
    for i in range(count):
        here, there = (jax.tree.map(lambda a, j=j: a[j], levels) for j in (i, i + 1))
        early, late = noises_of_step(i, 2)
        share = float(stochastic.shared(stochastic.gap(here, there), 0.5))
        draws += [early, np.sqrt(share) * early + np.sqrt(1 - share) * late]
    return draws


def errors(
    name: str, config: Mapping, spec: Mapping, grid: Mapping, counts: Sequence[int], **settings
) -> dict[int, float]:
    """How far our sampler on our grid ends from a class of a config, relative to the largest value, by steps.

    settings: of the class's `step`.
    """
    kind, prediction = dict(name=SCHEDULES[config.get('beta_schedule', 'scaled_linear')]), 'eps'
    if name.startswith('FlowMatch'):
        kind, prediction = dict(name='flow', shift=config.get('shift', 1.0)), 'flow'
    elif name.startswith('EDM'):
        kind, prediction = dict(name='edm'), 'edm'
    found = {}
    with oracles.float64(), in_float64(name) as scheduler_class:
        schedule, sampler = build.build('schedules', kind), build.build('samplers', spec)
        ours, made = Ours(sampler, schedule, prediction), grids.named(grid)
        for steps in counts:
            scheduler = scheduler_class.from_config(dict(config))
            scheduler.set_timesteps(steps)
            table = getattr(sampler, 'table', lambda schedule, grid, steps: grid(schedule, steps))
            levels = table(schedule, made, steps)
            x = X / float(levels.alpha[0]) if name in EXPLODING else X
            expected = theirs(scheduler, x, noise_for(name, levels), **settings)
            exploding = name in EXPLODING or name.startswith('EDM')
            end = float(levels.alpha[-1]) if exploding else 1.0
            found[steps] = oracles.relative_error(ours(X, levels), end * expected)
    return found
