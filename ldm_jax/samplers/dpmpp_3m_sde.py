"""DPM-Solver++(3M) for the reverse SDE."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Third order in the drift, from the x0_hat of three steps; the SDE is that of dpmpp_2m_sde.

    Starts with steps of first and second order; the last one, to clean data, is of first order. The second
    derivative has half of its weight, as in the reference.
    Ref: k-diffusion's sample_dpmpp_3m_sde.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    order: ClassVar[int] = 2  # of the whole walk, whose first step is of first order

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        none = jnp.zeros_like(x), jnp.full((), stochastic.FAR, levels.sigma.dtype)  # far away: weighs nothing
        return none, none

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        (x0_1, h_1), (x0_2, h_2) = state
        x0, h = denoise(x, here), stochastic.gap(here, there)
        z = (1 + self.eta) * h
        flat, slope, bend = stochastic.moments(z, 3)
        step = jnp.where(h < stochastic.FAR, h, 0.0)
        near, far = (x0 - x0_1) * (step / h_1), (x0_1 - x0_2) * (step / h_2)
        first = near + (near - far) * (h_1 / (h_1 + h_2))
        second = (near - far) * (step / (h_1 + h_2))
        kept = there.sigma / here.sigma * jnp.exp(-self.eta * h)
        fresh = there.sigma * jnp.sqrt(-jnp.expm1(-2 * self.eta * h))
        mean = kept * x + there.alpha * (flat * x0 + slope * first + bend / 2 * second)
        return mean + self.s_noise * fresh * normal(keys, x), ((x0, h), (x0_1, h_1))
