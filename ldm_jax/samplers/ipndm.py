"""Improved pseudo numerical method: Adams-Bashforth that starts with Euler's step."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import History, adams_bashforth, ddim, eps_of, reach
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Adams-Bashforth of up to max_order (1 to 4) on the predicted noise, one evaluation a step.

    The weights are those of equal distances and the first step is Euler's, which leaves order 2 for every max_order of
    2 and more. A step to clean data takes x0_hat, as ComfyUI does; diffusers' extrapolates there too.
    Ref: Zhang & Chen 2023, arXiv:2204.13902, appendix; diffusers' IPNDMScheduler; ComfyUI's ipndm.
    """

    max_order: int = struct.field(pytree_node=False, default=4)

    @property
    def order(self) -> int:
        return min(self.max_order, 2)

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, self.max_order - 1)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        weights = adams_bashforth(state.length + 1, self.max_order)[1:]
        change = jnp.where(there.sigma > 0, reach(here, there), 0.0) * state.correction(weights, eps)
        return ddim(x0, eps, there) + change, state.push(eps, here.sigma)
