"""Denoising diffusion implicit models."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.noise import normal
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """DDIM (eta = 0, deterministic) to DDPM (eta = 1). Ref: Song et al. 2021, arXiv:2010.02502, eq. 12 and 16."""

    eta: float = 0.0
    order: ClassVar[int] = 1

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = denoise(x, here)
        eps = (x - here.alpha * x0) / here.sigma
        shrink = jnp.sqrt(jnp.maximum(1 - (here.alpha / there.alpha) ** 2, 0.0))
        fresh = self.eta * there.sigma / here.sigma * shrink
        kept = jnp.sqrt(jnp.maximum(there.sigma**2 - fresh**2, 0.0))
        return there.alpha * x0 + kept * eps + fresh * normal(keys, x), state
