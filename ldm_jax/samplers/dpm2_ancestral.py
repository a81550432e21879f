"""DPM-Solver-2 steps that go below the next level and come back up to it with noise ("DPM2 a")."""

from __future__ import annotations

from typing import ClassVar

import jax
from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.evaluations import again
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import between, ddim, eps_of, reach
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """The midpoint method in sigma / alpha, its midpoint the geometric mean; eta = 0 is DPM2.

    Ref: k-diffusion's sample_dpm_2_ancestral; Lu et al. 2022, arXiv:2206.00927.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        down, rise, fresh = stochastic.ancestral(here, there, self.eta)
        x0 = denoise(x, here)
        eps = eps_of(x, x0, here)

        def halfway():
            middle = between(here, down)
            return ddim(x0, eps, middle), middle

        near = stochastic.gap(here, down) < stochastic.FAR
        x_2, middle = jax.lax.cond(near, halfway, lambda: (x, here))
        x0_2 = again(denoise, near, x_2, middle, x0)

        def midpoint():
            return ddim(x0, eps, down) + reach(here, down) * (eps_of(x_2, x0_2, middle) - eps)

        x = jax.lax.cond(near, midpoint, lambda: ddim(x0, eps, down))
        return rise * x + self.s_noise * fresh * normal(keys, x), state
