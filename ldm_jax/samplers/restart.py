"""Restart: deterministic steps, and at some levels noise that takes x back up, for the table to be walked again."""

from __future__ import annotations

from typing import ClassVar

import jax
from flax import struct

from ldm_jax.diffusion import restart_levels, stochastic
from ldm_jax.diffusion.grids import Grid
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import ddim, reach
from ldm_jax.diffusion.trace_once import parts_again
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree, Schedule


@struct.dataclass
class Sampler:
    """Heun's method down, the forward process up. The table says where to go up again: diffusion.restart_levels.

    Noise undoes what errors the steps between had gathered; on a table that only falls it is Heun's method.
    Ref: Xu et al. 2023, arXiv:2306.14878, algorithm 1 and 2; A1111's restart_sampler.
    """

    s_noise: float = 1.0
    order: ClassVar[int] = 2

    def table(self, schedule: Schedule, grid: Grid, num_steps: int) -> NoiseLevel:
        """A1111's levels for so many evaluated steps: the grid's with its detours, which begin at 20 steps."""
        base, steps, times = restart_levels.plan(num_steps)
        levels = grid(schedule, base)
        return restart_levels.restarts(schedule, levels, steps=steps, times=times) if times else levels

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        rises = stochastic.decay(here, there) > 1
        x0, eps = parts_again(denoise, ~rises, x, here, (x, x))
        end = ddim(x0, eps, there)
        inside = ~rises & (stochastic.gap(here, there) < stochastic.FAR)
        _, after = parts_again(denoise, inside, end, there, (x0, eps))

        def up():
            return stochastic.climb(x, here, there, self.s_noise * normal(keys, x))

        def down():
            return end + reach(here, there) * (after - eps) / 2

        return jax.lax.cond(rises, up, down), state
