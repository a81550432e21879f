"""The midpoint method, half-way in log-SNR."""

from __future__ import annotations

import math
from typing import ClassVar

from flax import struct

from ldm_jax.diffusion.probability_flow import between, churn, ddim, eps_of, reach
from ldm_jax.diffusion.trace_once import parts_again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """The slope in sigma / alpha half-way in log-SNR for the whole step, two evaluations; `churn` adds noise before it.

    s_tmin and s_tmax bound the sigma / alpha at which noise is added. Steps to clean data are Euler's, as published,
    and so are those from no signal at all, where sigma / alpha is infinite. Order 2.
    Ref: k-diffusion's sample_dpm_2, after Lu et al. 2022, arXiv:2206.00927, and Karras et al. 2022, arXiv:2206.00364.
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return num_steps

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x, here = churn(self, x, here, keys, state)
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)
        middle = between(here, there)
        inside = (there.sigma > 0) & (here.alpha > 0)
        _, slope = parts_again(denoise, inside, ddim(x0, eps, middle), middle, (x0, eps))
        return ddim(x0, eps, there) + reach(here, there) * (slope - eps), state
