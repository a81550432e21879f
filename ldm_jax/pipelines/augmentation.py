"""Noise on a conditioning, as in training: the more noise, the less the result depends on its details.

Ref: Ho et al. 2021, arXiv:2106.15282, section 4 (conditioning augmentation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldm_jax.diffusion import host_levels
from ldm_jax.types import NoiseLevel, Schedule


def levels(
    schedule: Schedule, noise_level: int | Sequence[int], batch: int, highest: int | None = None
) -> NoiseLevel:
    """The levels, with leaves [B], of a noise level for all images or one for each.

    Args:
        noise_level: whole times of the schedule, from 0 on.
        highest: that the model was trained at; the schedule's last by default.

    Raises ValueError for another count, and for a level that is no whole number or out of range.
    """
    highest = schedule.num_train_steps - 1 if highest is None else highest
    values = np.asarray(noise_level)
    if values.shape not in ((), (batch,)):
        raise ValueError(f'{values.size} noise levels for {batch} images: give one for each, or one for all.')
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() > highest:
        raise ValueError(f'noise_level must be whole and from 0 to {highest}; got {noise_level}.')
    return host_levels.levels(schedule, np.broadcast_to(values, (batch,)).astype(np.float64))
