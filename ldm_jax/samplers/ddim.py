"""Denoising diffusion implicit models."""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import restart_levels
from ldm_jax.diffusion.grids import Grid
from ldm_jax.diffusion.noise import normal
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree, Schedule


@struct.dataclass
class Sampler:
    """DDIM (eta = 0, deterministic) to DDPM (eta = 1). Ref: Song et al. 2021, arXiv:2010.02502, eq. 12 and 16.

    clip_sample: x0_hat is clipped to this absolute value, and the noise with it left as it was predicted, as in
        diffusers (its clip_sample_range).
    even_stride: each step goes down by N // S of N training steps whatever the next time is, and x is taken for that
        one's: what diffusers' DDIMScheduler does on 'trailing' and 'linspace' grids whose times lie otherwise apart.
    """

    eta: float = 0.0
    clip_sample: float = math.inf
    even_stride: bool = struct.field(pytree_node=False, default=False)
    order: ClassVar[int] = 1

    def table(self, schedule: Schedule, grid: Grid, num_steps: int) -> NoiseLevel:
        """The grid's levels; with even_stride, behind each one the level where its step ends."""
        if self.even_stride:
            return restart_levels.even_stride(schedule, grid, num_steps)
        return grid(schedule, num_steps)

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return jnp.zeros((), jnp.int32)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        def down():
            x0 = denoise(x, here)
            eps = (x - here.alpha * x0) / here.sigma
            x0 = jnp.clip(x0, -self.clip_sample, self.clip_sample)
            shrink = jnp.sqrt(jnp.maximum(1 - (here.alpha / there.alpha) ** 2, 0.0))
            fresh = self.eta * there.sigma / here.sigma * shrink
            kept = jnp.sqrt(jnp.maximum(there.sigma**2 - fresh**2, 0.0))
            return there.alpha * x0 + kept * eps + fresh * normal(keys, x)

        if self.even_stride:  # every other row only says what x is taken for
            return jax.lax.cond(state % 2 == 0, down, lambda: x), state + 1
        return down(), state
