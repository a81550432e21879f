"""Distances of rows to their nearest neighbours, in blocks, so that no matrix of all pairs is held."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 2048  # rows at a time


def distances(x: np.ndarray, y: np.ndarray, block: int = BLOCK) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows of x, their Euclidean distances to all rows of y [b, m]), of x [n, D] and y [m, D]."""
    y = np.asarray(y, np.float64)
    squares = (y**2).sum(1)
    for start in range(0, len(x), block):
        rows = slice(start, min(start + block, len(x)))
        part = np.asarray(x[rows], np.float64)
        squared = (part**2).sum(1)[:, None] + squares - 2 * part @ y.T
        yield rows, np.sqrt(np.maximum(squared, 0))


def nearest(x: np.ndarray, y: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(distances [n, k], indices [n, k]) of the k rows of y [m, D] that are nearest to each row of x, ascending.

    Raises ValueError for more neighbours than rows.
    """
    if not 1 <= k <= len(y):
        raise ValueError(f'{k} neighbours among {len(y)} rows: there are 1 to {len(y)}.')
    far, which = np.empty((len(x), k)), np.empty((len(x), k), np.int64)
    for rows, each in distances(x, y):
        near = np.argpartition(each, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(each, near, 1), axis=1, kind='stable')
        which[rows] = np.take_along_axis(near, order, 1)
        far[rows] = np.take_along_axis(each, which[rows], 1)
    return far, which


def radii(x: np.ndarray, k: int) -> np.ndarray:
    """[n], the distance of each row of x [n, D] to its k-th nearest other row."""
    found = np.empty(len(x))
    for rows, each in distances(x, x):
        each[np.arange(each.shape[0]), np.arange(rows.start, rows.stop)] = 0  # of itself, free of rounding
        found[rows] = np.partition(each, k, axis=1)[:, k]
    return found
