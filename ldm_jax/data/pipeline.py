"""From a source of examples to an endless stream of batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import grain
import numpy as np

Example = dict[str, Any]


class Examples(Protocol):
    """Examples by index: what every module of ldm_jax/data provides."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Example: ...


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A source with a function applied to each example as it is read."""

    source: Examples
    function: Callable[[Example], Example]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Example:
        return self.function(self.source[i])


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A source whose examples are rows of arrays [N, ...] that share N."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, i: int) -> Example:
        return {name: array[i] for name, array in self.arrays.items()}


def batches(source: Examples, batch_size: int, seed: int, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Batches number start, start + 1, ... of the shuffled, endlessly repeated source; leaves [B, ...].

    Batch n is a pure function of (source, batch_size, seed, n), so a resumed run sees what it would have
    seen, and no iterator is saved. Every epoch has an order of its own.
    """
    if batch_size < 1:
        raise ValueError(f'batch_size must be at least 1; got {batch_size}.')
    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat().batch(batch_size)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(dataset[start:].to_iter_dataset(options))


def in_order(source: Examples, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """The whole source once, in order; the last batch may be smaller."""
    for first in range(0, len(source), batch_size):
        yield stack([source[i] for i in range(first, min(first + batch_size, len(source)))])


def stack(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Examples to one batch, leaves [B, ...]."""
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
