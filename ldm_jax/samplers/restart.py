"""Restart: deterministic steps, and at some levels noise that takes x back up, for the table to be walked again."""

from __future__ import annotations

from typing import ClassVar

import jax
from flax import struct

from ldm_jax.diffusion import climbs, stochastic
from ldm_jax.diffusion.evaluations import again
from ldm_jax.diffusion.grids import Grid
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import ddim, eps_of, reach
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree, Schedule


@struct.dataclass
class Sampler:
    """Heun's method down, the forward process up. Where to go up again is the table's: diffusion.climbs.restarts.

    Noise undoes what errors the steps between had gathered; on a table that only falls it is Heun's method.
    Ref: Xu et al. 2023, arXiv:2306.14878, algorithm 1 and 2; A1111's restart_sampler.
    """

    s_noise: float = 1.0
    order: ClassVar[int] = 2

    def table(self, schedule: Schedule, grid: Grid, num_steps: int) -> NoiseLevel:
        """A1111's levels for so many evaluated steps: the grid's with its detours, which begin at 20 steps."""
        base, steps, times = climbs.plan(num_steps)
        levels = grid(schedule, base)
        return climbs.restarts(schedule, levels, steps=steps, times=times) if times else levels

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        rises = stochastic.decay(here, there) > 1
        near = ~rises & (stochastic.gap(here, there) < stochastic.FAR)
        x0 = again(denoise, ~rises, x, here, x)
        eps = eps_of(x, x0, here)
        end = ddim(x0, eps, there)
        end_x0 = again(denoise, near, end, there, x0)

        def corrected():
            return end + reach(here, there) * (eps_of(end, end_x0, there) - eps) / 2

        def up():
            return stochastic.climb(x, here, there, self.s_noise * normal(keys, x))

        return jax.lax.cond(rises, up, lambda: jax.lax.cond(near, corrected, lambda: end)), state
