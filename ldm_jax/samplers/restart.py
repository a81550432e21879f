"""Restart: deterministic steps, and at some levels noise that takes x back up, for the table to be walked again."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.diffusion import stochastic
from ldm_jax.diffusion.noise import normal
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree


@struct.dataclass
class Sampler:
    """Heun's method down, the forward process up. Where to go up again is the table's: diffusion.climbs.restarts.

    Noise undoes what errors the steps between had gathered; on a table that only falls it is Heun's method.
    Ref: Xu et al. 2023, arXiv:2306.14878, algorithm 1 and 2; A1111's restart_sampler.
    """

    s_noise: float = 1.0
    order: ClassVar[int] = 2

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        def down():
            x0, h = denoise(x, here), stochastic.gap(here, there)
            x_2 = stochastic.ddim(x, x0, here, there)
            x0_2 = stochastic.again(denoise, x_2, there, h, x0)
            end = there.replace(sigma=jnp.where(h < stochastic.FAR, there.sigma, here.sigma))
            turn = (x_2 - there.alpha * x0_2) / end.sigma - (x - here.alpha * x0) / here.sigma
            width = there.sigma - there.alpha * here.sigma / jnp.where(h < stochastic.FAR, here.alpha, 1.0)
            return x_2 + jnp.where(h < stochastic.FAR, width / 2, 0.0) * turn

        def up():
            return stochastic.climb(x, here, there, self.s_noise * normal(keys, x))

        return jax.lax.cond(stochastic.decay(here, there) > 1, up, down), state
