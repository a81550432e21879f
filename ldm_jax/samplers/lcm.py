"""Sampling from consistency models: denoise, put noise back, denoise again."""

from __future__ import annotations

import math
from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.noise import normal
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """The latent consistency model's: x0_hat and wholly new noise at each level.

    Its denoiser jumps to data from any level, so it follows no ODE; 1 to 8 steps suffice. The scalings that make
    a network a consistency model are a denoiser of their own, diffusion.consistency.boundary.
    clip_sample: x0_hat is clipped to this absolute value.
    Ref: Luo et al. 2023, arXiv:2310.04378, algorithm 3; Song et al. 2023, arXiv:2303.01469, algorithm 1.
    """

    clip_sample: float = math.inf
    order: ClassVar[int] = 0  # always draws

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = jnp.clip(denoise(x, here), -self.clip_sample, self.clip_sample)
        return there.alpha * x0 + there.sigma * normal(keys, x), state
