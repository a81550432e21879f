"""Which examples make batch n: a pure function of the seed and n.

A bucket's examples form an endless stream, one shuffled epoch after the other; a batch is a run of it. Without
buckets there is one stream, and batch n is its positions n B to (n + 1) B - 1. With buckets b of N_b examples each

    T(e) = sum over b of floor(e N_b / B)

batches are whole after e epochs. Those that become whole in epoch e, T(e + 1) - T(e) of all buckets, are its
batches, in a shuffled order. So no example is left out or shown twice: fewer than B of a bucket, which do not fill a
batch at the end of an epoch, begin the bucket's next one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from grain.experimental import index_shuffle

# Grain's permutation without a table walks 2^16 numbers however few there are: 6 ms for one of seven.
TABLE = 2**16

Place = tuple[int, int]  # a bucket, a position of its stream


@dataclasses.dataclass(frozen=True)
class Order:
    """The order of examples in epochs and batches.

    Args:
        buckets: the indices of the examples of each bucket; examples of different ones never share a batch.
        batch_size: B, of all hosts together.
        seed: any integer.
    """

    buckets: Sequence[Sequence[int]]
    batch_size: int
    seed: int

    def places(self, n: int) -> list[Place]:
        """The B places whose examples make batch n."""
        if len(self.buckets) == 1:
            bucket, number = 0, n
        else:
            epoch = self._epoch(n)
            bucket, number = map(int, self._plan(epoch)[n - self._whole(epoch)])
        return [(bucket, number * self.batch_size + row) for row in range(self.batch_size)]

    def candidates(self, place: Place) -> Iterator[tuple[int, int]]:
        """(epoch, index) of the example at a place, then of those that replace it: the next ones of its epoch."""
        bucket, position = place
        count = len(self.buckets[bucket])
        epoch, first = divmod(position, count)
        for offset in range(count):
            number = _shuffled((first + offset) % count, count, self.seed, bucket, epoch)
            yield epoch, int(self.buckets[bucket][number])

    def rng(self, epoch: int, index: int) -> np.random.Generator:
        """The randomness of one showing of an example."""
        return np.random.default_rng([self.seed % 2**64, epoch, index])

    def _whole(self, epoch: int) -> int:
        """T(epoch)."""
        return sum(epoch * len(members) // self.batch_size for members in self.buckets)

    def _epoch(self, n: int) -> int:
        """The epoch of batch n: the last with T(epoch) <= n."""
        low, high = 0, 1
        while self._whole(high) <= n:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._whole(middle) <= n else (low, middle)
        return low

    def _plan(self, epoch: int) -> np.ndarray:
        """(bucket, number within its stream) of each batch of an epoch, [T(epoch + 1) - T(epoch), 2]."""
        return _plan(tuple(map(len, self.buckets)), self.batch_size, self.seed, epoch)


@functools.lru_cache(maxsize=4)
def _plan(counts: tuple[int, ...], batch_size: int, seed: int, epoch: int) -> np.ndarray:
    entries = []
    for bucket, count in enumerate(counts):
        numbers = np.arange(epoch * count // batch_size, (epoch + 1) * count // batch_size)
        entries.append(np.stack([np.full_like(numbers, bucket), numbers], axis=1))
    rng = np.random.default_rng([seed % 2**64, epoch])
    return rng.permutation(np.concatenate(entries))


def _shuffled(position: int, count: int, seed: int, bucket: int, epoch: int) -> int:
    """The number 0 .. count - 1 at a position of an epoch's permutation."""
    if count <= TABLE:
        return int(_table(count, seed, bucket, epoch)[position])
    return index_shuffle(position, max_index=count - 1, seed=_seed(seed, bucket, epoch), rounds=4)


@functools.lru_cache(maxsize=256)
def _table(count: int, seed: int, bucket: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(_seed(seed, bucket, epoch)).permutation(count)


@functools.lru_cache(maxsize=256)
def _seed(seed: int, bucket: int, epoch: int) -> int:
    """Seed of an epoch's permutation: 32 bits, as Grain takes them."""
    return int(np.random.SeedSequence([seed % 2**64, bucket, epoch]).generate_state(1)[0])
