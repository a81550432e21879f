"""Gradient estimation with CFG++ guidance."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import cfg_pp, stochastic
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Euler CFG++ steps along eps + (gamma - 1) (eps - last eps), eps unconditional; gamma = 1 is euler_cfg_pp.

    Ref: Permenter & Yuan 2024, arXiv:2306.04848, section 5; ComfyUI's sample_gradient_estimation_cfg_pp.
    """

    gamma: float = 2.0
    order: ClassVar[int] = 1

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return jnp.zeros_like(x), jnp.zeros((), bool)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        last_eps, started = state
        guided, uncond = cfg_pp.both(denoise, x, here)
        eps = (x - here.alpha * uncond) / here.sigma
        use = started & (there.sigma > 0)
        width = jnp.where(use, there.sigma - there.alpha * here.sigma / jnp.where(use, here.alpha, 1.0), 0.0)
        x = stochastic.ddim(x, uncond, here, there) + there.alpha * (guided - uncond)
        return x + (self.gamma - 1) * width * (eps - last_eps), (eps, jnp.ones((), bool))
