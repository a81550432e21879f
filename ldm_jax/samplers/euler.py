"""Euler's method in sigma / alpha, with the noise of EDM's stochastic sampler."""

from __future__ import annotations

import math
from typing import ClassVar

from flax import struct

from ldm_jax.diffusion.probability_flow import churn, ddim, eps_of
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """DDIM's step, after noise added in each by `churn`; deterministic and DDIM itself at s_churn = 0.

    s_tmin and s_tmax bound the sigma / alpha at which noise is added. Order 1.
    Ref: Karras et al. 2022, arXiv:2206.00364, algorithm 2 without its correction; k-diffusion's sample_euler.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    order: ClassVar[int] = 1

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return num_steps

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x, here = churn(self, x, here, keys, state)
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        return ddim(x0, eps, there), state
