"""Rows kept whole, for metrics that need each of them: subsets, neighbours, intervals.

Each row has its image's number, and rows are sorted by it before they are used, so that the order in which batches,
hosts and restarts brought them changes nothing. Beyond a limit they lie on disk.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Iterable

import numpy as np

from ldm_jax.evaluation.checks import check_rows

LIMIT = 1 << 30  # bytes of rows that stay in memory


@dataclasses.dataclass(frozen=True, eq=False)
class RowStore:
    """Rows [n, D] with numbers [n], as the chunks in which they came.

    folder: where rows beyond `limit` bytes are written; a temporary one by default.
    """

    chunks: tuple[tuple[np.ndarray, np.ndarray], ...] = ()  # (numbers [B], rows [B, D])
    folder: pathlib.Path | None = None
    limit: int = LIMIT

    @property
    def count(self) -> int:
        return sum(len(numbers) for numbers, _ in self.chunks)

    def add(self, rows: np.ndarray, numbers: np.ndarray) -> RowStore:
        """With rows [B, D] more, kept as float32 or float64 as they come.

        Raises ValueError for rows that are not finite, or of another width.
        """
        width = self.chunks[0][1].shape[1] if self.chunks else None
        check_rows(rows, numbers, width)
        rows = np.asarray(rows)
        rows = rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float64)
        held = sum(kept.nbytes for _, kept in self.chunks if not isinstance(kept, np.memmap))
        kept = _on_disk(rows, self.folder) if held + rows.nbytes > self.limit else rows
        return dataclasses.replace(self, chunks=(*self.chunks, (np.array(numbers, np.int64), kept)))

    def __or__(self, other: RowStore) -> RowStore:
        """Both sets of rows as one."""
        return dataclasses.replace(self, chunks=self.chunks + other.chunks)

    @functools.cached_property
    def numbers(self) -> np.ndarray:
        """[n], ascending. Raises ValueError where a number comes twice."""
        numbers = np.sort(np.concatenate([numbers for numbers, _ in self.chunks] or [np.zeros(0, np.int64)]))
        twice = numbers[:-1][numbers[1:] == numbers[:-1]]
        if len(twice):
            raise ValueError(f'Image {twice[0]} was counted twice; each image counts once.')
        return numbers

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """[n, D], in the order of `numbers`."""
        if not self.numbers.size:
            raise ValueError('No images were added.')
        order = np.argsort(np.concatenate([numbers for numbers, _ in self.chunks]), kind='stable')
        return np.concatenate([rows for _, rows in self.chunks])[order]


def stored(rows: np.ndarray, numbers: Iterable[int] | None = None) -> RowStore:
    """A store of rows [n, D], numbered from 0 by default."""
    return RowStore().add(rows, np.arange(len(rows)) if numbers is None else np.asarray(list(numbers)))


def _on_disk(rows: np.ndarray, folder: pathlib.Path | None) -> np.ndarray:
    """The rows as a map of a file without a name, which goes when the last array of it does."""
    with tempfile.TemporaryFile(dir=folder) as file:
        mapped = np.memmap(file, rows.dtype, 'w+', shape=rows.shape)
    mapped[:] = rows
    return mapped
