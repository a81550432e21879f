"""Trajectory consistency: steps of one evaluation that go below the next level and come back with noise."""

from __future__ import annotations

from typing import ClassVar

import jax
from flax import struct

from ldm_jax.diffusion import restart_levels, stochastic
from ldm_jax.diffusion.grids import Grid
from ldm_jax.diffusion.noise import normal
from ldm_jax.diffusion.probability_flow import ddim, eps_of
from ldm_jax.types import Array, Denoiser, NoiseLevel, PyTree, Schedule


@struct.dataclass
class Sampler:
    """DDIM down, the forward process up: strategic stochastic sampling on the table of diffusion.restart_levels.tcd.

    gamma: how far below, 0 .. 1, as a share of the schedule's time: it is in the table; 0 is DDIM. A step up costs
    no evaluation. On a table that only falls it is DDIM. Ref: Zheng et al. 2024, arXiv:2402.19159, algorithm 4.
    """

    gamma: float = 0.3
    order: ClassVar[int] = 1

    def table(self, schedule: Schedule, grid: Grid, num_steps: int) -> NoiseLevel:
        """The grid's levels, and below each inner one the level that the step before it goes down to."""
        return restart_levels.tcd(schedule, grid(schedule, num_steps), self.gamma)

    def init(self, x: Array, levels: NoiseLevel, num_steps: Array) -> PyTree:
        return ()

    def step(
        self, denoise: Denoiser, x: Array, state: PyTree, here: NoiseLevel, there: NoiseLevel, keys: Array
    ) -> tuple[Array, PyTree]:
        def down():
            x0 = denoise(x, here)
            return ddim(x0, eps_of(x, x0, here), there)

        def up():
            return stochastic.climb(x, here, there, normal(keys, x))

        return jax.lax.cond(stochastic.decay(here, there) > 1, up, down), state
