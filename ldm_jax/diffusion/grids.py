"""The levels to sample at: schedule and number of steps -> NoiseLevel with leaves [S + 1], noisiest first.

The quirks of reference samplers are data here, so that samplers have none.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from ldm_jax.build import unknown
from ldm_jax.types import NoiseLevel, Schedule

Grid = Callable[[Schedule, int], NoiseLevel]


def trailing(schedule: Schedule, num_steps: int) -> NoiseLevel:
    """Evenly spaced down from the last training time, ending at clean data.

    The first step starts at t = N - 1, where training saw its noisiest pictures.
    Ref: Lin et al. 2024, arXiv:2305.08891, table 2.
    """
    total = _check(num_steps, schedule)
    times = np.round(total - total / num_steps * np.arange(num_steps)) - 1
    return _with_end(schedule, times, NoiseLevel(t=jnp.zeros(1), alpha=jnp.ones(1), sigma=jnp.zeros(1)))


def leading(schedule: Schedule, num_steps: int) -> NoiseLevel:
    """Stable Diffusion's DDIM times: every c-th of 0 .. N - 1 plus one, c = N // S, the lowest S of them.

    They end at the level of t = 0, not at clean data (`set_alpha_to_one` False), and start short of the
    noisiest level; public samples were made so. Where S does not divide N, CompVis' code takes one step more.
    Ref: Song et al. 2021, arXiv:2010.02502; diffusers' 'leading' spacing with `steps_offset` 1.
    """
    total = _check(num_steps, schedule)
    times = np.arange(num_steps)[::-1] * (total // num_steps) + 1
    times = np.minimum(times, total - 1)  # with S = N the first one would be N, which does not exist
    return _with_end(schedule, times, schedule.level(jnp.zeros(1)))


def named(name: str) -> Grid:
    """The grid of a name: 'trailing' or 'leading'. Raises ValueError for another."""
    known = {'trailing': trailing, 'leading': leading}
    if name not in known:
        raise unknown('grid', name, sorted(known))
    return known[name]


def _with_end(schedule: Schedule, times: np.ndarray, end: NoiseLevel) -> NoiseLevel:
    start = schedule.level(jnp.asarray(times))
    join = jnp.concatenate
    return NoiseLevel(
        t=join([start.t, end.t]), alpha=join([start.alpha, end.alpha]), sigma=join([start.sigma, end.sigma])
    )


def _check(num_steps: int, schedule: Schedule) -> int:
    if not 1 <= num_steps <= schedule.num_train_steps:
        raise ValueError(
            f'num_steps must be between 1 and the {schedule.num_train_steps} training steps; got {num_steps}.'
        )
    return schedule.num_train_steps
