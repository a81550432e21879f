"""Pseudo linear multistep: the sampler that Stable Diffusion was published with."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion.probability_flow import History, adams_bashforth, ddim, eps_of, reach
from ldm_jax.diffusion.trace_once import parts_again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """DDIM's step with the noise of Adams-Bashforth 2, 3 and then 4; the first step costs two evaluations.

    Quirks kept: the weights are those of equal distances, though equal ones in time are not equal in sigma / alpha,
    which leaves order 2; the first step averages the noise at both its ends (pseudo improved Euler).
    Ref: Liu et al. 2022, arXiv:2202.09778; CompVis' plms.py.
    """

    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return History.empty(x, levels, 3)

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        end = ddim(x0, eps, there)
        weights = adams_bashforth(state.length + 1, 4)[1:]
        first = (state.length == 0) & (there.sigma > 0)
        _, after = parts_again(denoise, first, end, there, (x0, eps))
        change = jnp.where(first, (after - eps) / 2, state.correction(weights, eps))
        return end + reach(here, there) * change, state.push(eps, here.sigma)
