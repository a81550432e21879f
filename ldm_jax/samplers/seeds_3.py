"""SEEDS-3: an exponential integrator of three stages for the reverse SDE."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal, split
from ldm_jax.diffusion.probability_flow import between
from ldm_jax.diffusion.trace_once import again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """The SDE of dpmpp_2m_sde with evaluations at the parts r_1 and r_2 of h, on the noise's own path.

    Ref: Gonzalez et al. 2023, arXiv:2305.14267; ComfyUI's sample_seeds_3.
    """

    eta: float = 1.0
    s_noise: float = 1.0
    r_1: float = 1 / 3
    r_2: float = 2 / 3
    order: ClassVar[int] = 3

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        x0, h = denoise(x, here), stochastic.gap(here, there)
        near = h < stochastic.FAR
        draws = [normal(k, x) for k in split(keys, 3)]

        def stage(level, part, gathered, slope):
            """x at the level, after that part of h; slope: of x0_hat over h."""
            flat, line = stochastic.moments(part * h * (1 + self.eta), 2)
            kept = jnp.exp(-part * h * self.eta) / here.sigma
            x_part = level.sigma * (kept * x + self.s_noise * gathered)
            return x_part + level.alpha * (flat * x0 + line * part * slope)

        inner = between(here, there, self.r_1)
        gathered = stochastic.gather(0.0, draws[0], self.r_1 * h, self.eta)
        x0_2 = again(denoise, near, stage(inner, self.r_1, gathered, 0.0), inner, x0)

        inner = between(here, there, self.r_2)
        gathered = stochastic.gather(gathered, draws[1], (self.r_2 - self.r_1) * h, self.eta)
        slope = (x0_2 - x0) / self.r_1
        x0_3 = again(denoise, near, stage(inner, self.r_2, gathered, slope), inner, x0)

        gathered = stochastic.gather(gathered, draws[2], (1 - self.r_2) * h, self.eta)
        return stage(there, 1.0, gathered, (x0_3 - x0) / self.r_2), state
