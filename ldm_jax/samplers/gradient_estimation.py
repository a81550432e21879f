"""Gradient estimation: Euler's step with the change of the slope exaggerated."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import History, ddim, eps_of, reach
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """The slope in sigma / alpha plus (ge_gamma - 1) times its change since the last step; one evaluation a step.

    ge_gamma 1 is DDIM, 1.5 Adams-Bashforth 2 at equal distances. Order 1. The first step and those to clean data are
    DDIM's. Ref: Permenter & Yuan 2024, arXiv:2306.04848, algorithm 2; ComfyUI's gradient_estimation (euler_ge).
    """

    ge_gamma: float = 2.0
    order: ClassVar[int] = 1

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, 1)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        more = jnp.where(
            (state.length > 0) & (there.sigma > 0), reach(here, there) * (1 - self.ge_gamma), 0.0
        )
        return ddim(x0, eps, there) + state.correction([more], eps), state.push(eps, here.sigma)
