"""Denoising diffusion probabilistic models: the ancestral sampler they were introduced with."""

from __future__ import annotations

import math
from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.build import unknown
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.stochastic import decay
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree

VARIANCES = ['fixed_large', 'fixed_small']


@struct.dataclass
class Sampler:
    """Draws from the posterior q(x_there | x_here, x0_hat). Ref: Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7.

    variance: 'fixed_small' is that of the posterior, best for data at one point; 'fixed_large' that of the
    forward step, best for Gaussian data, and far too large for few steps. Names as in diffusers' DDPMScheduler,
    which draws noise in a last step to clean data when its t is not 0: here that step adds none.
    clip_sample: x0_hat is clipped to this absolute value; diffusers' clip_sample_range.

    Raises ValueError for another variance.
    """

    variance: str = struct.field(pytree_node=False, default='fixed_small')
    clip_sample: float = math.inf
    order: ClassVar[int] = 0  # always draws

    def __post_init__(self):
        if self.variance not in VARIANCES:
            raise unknown('variance', self.variance, VARIANCES)

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        kept = decay(here, there)
        new = jnp.maximum(1 - kept**2, 0.0)  # of the variance at `here`, what the forward step added
        x0 = jnp.clip(denoise(x, here), -self.clip_sample, self.clip_sample)
        mean = there.sigma / here.sigma * kept * x + there.alpha * new * x0
        scale = there.sigma if self.variance == 'fixed_small' else here.sigma * (there.sigma > 0)
        return mean + scale * jnp.sqrt(new) * normal(keys, x), state
