"""Gradient estimation with CFG++ guidance."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import cfg_pp
from ldm_jax.diffusion.probability_flow import History, ddim, eps_of, reach
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Euler CFG++ steps along eps + (ge_gamma - 1) (eps - last eps), eps unconditional; ge_gamma = 1 is euler_cfg_pp.

    Ref: Permenter & Yuan 2024, arXiv:2306.04848, section 5; ComfyUI's sample_gradient_estimation_cfg_pp.
    """

    ge_gamma: float = 2.0
    order: ClassVar[int] = 1

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, 1)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        guided, uncond = cfg_pp.both(denoise, x, here)
        eps = eps_of(x, uncond, here)
        more = jnp.where(
            (state.length > 0) & (there.sigma > 0), reach(here, there) * (1 - self.ge_gamma), 0.0
        )
        return ddim(guided, eps, there) + state.correction([more], eps), state.push(eps, here.sigma)
