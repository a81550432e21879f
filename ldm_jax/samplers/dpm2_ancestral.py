"""DPM-Solver-2 steps that go below the next level and come back up to it with noise ("DPM2 a")."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal
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
        x0, h = denoise(x, here), stochastic.gap(here, down)
        middle = stochastic.between(here, down, 0.5)
        x_2 = stochastic.ddim(x, x0, here, middle)
        x0_2 = stochastic.again(denoise, x_2, middle, h, x0)
        turn = (x_2 - middle.alpha * x0_2) / middle.sigma - (x - here.alpha * x0) / here.sigma
        width = jnp.where(h < stochastic.FAR, down.sigma - down.alpha * here.sigma / here.alpha, 0.0)
        x = stochastic.ddim(x, x0, here, down) + width * turn  # turn: of eps, the slope in sigma / alpha
        return rise * x + self.s_noise * fresh * normal(keys, x), state
