"""What rows and images must be before they are counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def check_rows(rows: np.ndarray, numbers: Sequence[int] | np.ndarray | None, width: int | None) -> np.ndarray:
    """Rows [B, D] in float64.

    Args:
        numbers: the images' numbers, which errors name; their places in the batch by default.
        width: D of the rows before these; None where there were none.

    Raises ValueError for rows of another rank, width or count than expected, or with NaN or infinity.
    """
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2:
        raise ValueError(f'Rows of features are [images, features]; got the shape {rows.shape}.')
    numbers = np.arange(len(rows)) if numbers is None else np.asarray(numbers)
    if numbers.shape != (len(rows),):
        raise ValueError(
            f'{len(rows)} rows came with numbers of the shape {numbers.shape}; one each is needed.'
        )
    if width is not None and rows.shape[1] != width:
        raise ValueError(
            f'Features {rows.shape[1]} wide follow features {width} wide; are they of another network?'
        )
    bad = ~np.isfinite(rows).all(1)
    if bad.any():
        raise ValueError(
            f'The features of {bad.sum()} images are not finite, the first of them image {numbers[bad][0]}: look at '
            'the images, or at the sampler that made them.'
        )
    return rows


def check_count(have: int, need: int, what: str) -> None:
    """Raises ValueError when there are fewer images than a metric needs."""
    if have < need:
        raise ValueError(f'{what} needs at least {need} images; there are {have}.')


def check_pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and their references [B, H, W, C], in float64. Raises ValueError for two shapes."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(
            f'Pairs are two batches of images [B, H, W, C] of one shape; got {x.shape} and {y.shape}.'
        )
    return x, y
