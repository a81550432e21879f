"""diffusers' schedulers in float64, walked with a network and with noise that a test gives; and ours beside them."""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator, Sequence
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.diffusion import parameterization
from ldm_jax.diffusion.denoiser import denoiser, on_schedule
from ldm_jax.diffusion.sampling import padded, sample
from ldm_jax.types import Cond
from tests.oracles import keys

X = np.random.default_rng(0).standard_normal((2, 4, 4, 3))
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear')
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


def theirs(scheduler, x: np.ndarray, noise: Sequence[np.ndarray] = (), **settings) -> np.ndarray:
    """Where a scheduler, its timesteps set, takes x; `noise` is what it draws, one after the other."""
    import torch

    draws = map(torch.from_numpy, noise)
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


def noise_of_step(i: int) -> np.ndarray:
    """What a sampler of ours draws in step i, where it draws once."""
    from ldm_jax.diffusion import noise

    return np.array(noise.normal(jax.vmap(jax.random.fold_in, (0, None))(keys(X), i), jnp.asarray(X)))


def noises_of_step(i: int, num: int) -> list[np.ndarray]:
    """The same of one that draws `num` times."""
    from ldm_jax.diffusion import noise

    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys(X), i)
    return [np.array(noise.normal(each, jnp.asarray(X))) for each in noise.split(step_keys, num)]
