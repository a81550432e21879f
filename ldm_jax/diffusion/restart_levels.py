"""Tables of levels that go up again in places, for the samplers `restart`, `tcd` and `ddim` with an even stride.

A table is data, so any plan runs in one compiled program: pad it (sampling.padded), and give its number of steps.
"""

from __future__ import annotations

import jax
import numpy as np

from ldm_jax.diffusion import host_levels
from ldm_jax.diffusion.grids import Grid
from ldm_jax.types import NoiseLevel, Schedule

RHO = 7.0  # of Karras et al. 2022, arXiv:2206.00364, eq. 5


def restarts(
    schedule: Schedule,
    levels: NoiseLevel,
    low: float = 0.1,
    high: float = 2.0,
    steps: int = 9,
    times: int = 1,
) -> NoiseLevel:
    """levels [S + 1] with a detour: from the level nearest to `low` up to that nearest to `high`, and down again.

    Args:
        schedule: whose levels the detour's are; t lies between whole numbers.
        levels: falling, known where this is called (not traced).
        low, high: sigma / alpha where to go up and where to.
        steps: of one descent, spaced as by Karras et al.
        times: how often. A time adds steps + 1 rows, one of which, the climb, costs no evaluation.

    The result has S + 1 + times (steps + 1) rows. Without a level of its own below `high`, `levels` is returned.
    The numbers are A1111's, whose defaults for a count of steps are `plan`'s.
    Raises ValueError where steps or times is not positive.
    """
    if steps < 1 or times < 1:
        raise ValueError(f'steps and times must be at least 1; got {steps} and {times}.')
    ratio = np.asarray(levels.sigma, np.float64) / np.maximum(np.asarray(levels.alpha, np.float64), 1e-30)
    bottom, top = (int(np.argmin(np.abs(ratio - goal))) for goal in (low, high))
    if top >= bottom:
        return levels
    ends = ratio[[top, bottom]] ** (1 / RHO)
    inner = np.linspace(ends[0], ends[1], steps + 1)[1:-1] ** RHO
    inner = host_levels.levels(schedule, host_levels.on_host(schedule.time, -2 * np.log(inner)))
    # Here and below numpy: a jnp.concatenate compiles for each S.
    levels = table = jax.tree.map(np.asarray, levels)
    for _ in range(times):
        table = jax.tree.map(
            lambda a, whole, new: np.concatenate(
                [a[: bottom + 1], whole[top : top + 1], new, whole[bottom : bottom + 1], a[bottom + 1 :]]
            ),
            table,
            levels,
            inner,
        )
    return table


def plan(num_steps: int) -> tuple[int, int, int]:
    """A1111's default for so many evaluated steps: (steps of the base table, steps of a detour, times).

    (num_steps, 0, 0), no detour, below 20.
    """
    if num_steps < 20:
        return num_steps, 0, 0
    steps, times = (num_steps // 4, 2) if num_steps >= 36 else (9, 1)
    return num_steps - steps * times, steps, times


def tcd(schedule: Schedule, levels: NoiseLevel, gamma: float = 0.3) -> NoiseLevel:
    """levels [S + 1] with the level of time floor((1 - gamma) t) before each one but the first and the last.

    gamma: 0 .. 1; 0 is DDIM, 1 predicts x0 and puts wholly new noise on the level t = 0.
    The result has 2 S rows. The last step has no way down below: levels should end at clean data or t = 0.
    Ref: Zheng et al. 2024, arXiv:2402.19159, algorithm 4; diffusers' TCDScheduler, where gamma is eta.
    """
    levels = jax.tree.map(np.asarray, levels)
    low = host_levels.levels(schedule, np.floor((1 - gamma) * levels.t[1:-1]))
    return jax.tree.map(
        lambda a, below: np.concatenate([a[:1], np.stack([below, a[1:-1]], 1).ravel(), a[-1:]]), levels, low
    )


def even_stride(schedule: Schedule, grid: Grid, num_steps: int) -> NoiseLevel:
    """The levels of a grid's times t, and behind each of them the level of t - N // S, where its step ends.

    Below time 0 that is the grid's end. The result has 2 S rows. A time of the grid need not be where the step before
    it ended: diffusers' DDIMScheduler goes on there all the same, with an x of other noise than its time input says.
    """
    with jax.ensure_compile_time_eval():
        times = grid.times(schedule, num_steps)
        below = times - schedule.num_train_steps // num_steps
        levels = host_levels.levels(schedule, np.stack([times, np.maximum(below, 0)], 1).ravel())
        if grid.end == 'clean':
            levels.alpha[1::2][below < 0], levels.sigma[1::2][below < 0] = 1, 0
        return levels
