"""Bootstrap intervals of means: of images' scores, and of their paired differences.

Ref: Efron & Tibshirani 1993, chapter 13 (percentile intervals).
"""

from __future__ import annotations

import numpy as np

REPLICATES = 2000


def interval(
    scores: np.ndarray, level: float = 0.95, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float]:
    """The interval that holds the mean of scores [n] at a level, by resampling images.

    For two sets whose images share noise and prompts, give the differences of their scores: the interval is then of the
    paired difference, which is narrower than those of both means.

    Raises ValueError below two scores.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or len(scores) < 2:
        raise ValueError(f'A bootstrap interval needs at least 2 scores [n]; got the shape {scores.shape}.')
    random = np.random.default_rng(seed)
    means = [scores[random.integers(0, len(scores), len(scores))].mean() for _ in range(replicates)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
