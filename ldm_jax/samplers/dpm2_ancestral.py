"""DPM-Solver-2 steps that go below the next level and come back up to it with noise ("DPM2 a")."""

from __future__ import annotations

from typing import ClassVar

from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import between, ddim, eps_of, reach
from ldm_jax.diffusion.trace_once import parts_again
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
        middle = between(here, down)
        near = stochastic.gap(here, down) < stochastic.FAR
        _, slope = parts_again(denoise, near, ddim(x0, eps, middle), middle, (x0, eps))
        x = ddim(x0, eps, down) + reach(here, down) * (slope - eps)
        return rise * x + self.s_noise * fresh * normal(keys, x), state
