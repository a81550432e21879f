"""Endless streams of batches from sources of examples."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain
import numpy as np
from absl import flags

from ldm_jax.data.corrupt import Corrupt, Report
from ldm_jax.data.order import Order, Place

Example = dict[str, Any]
Batch = dict[str, np.ndarray]

PATIENCE = 1000  # corrupt examples in a row before the data are taken to be gone


class Examples(Protocol):
    """Examples by index: what every module of ldm_jax/data provides.

    An example has some of: 'image' uint8 [H, W, 3]; 'text' str; 'label' int32 []; 'size' int32 [6], SDXL's numbers;
    'moments' or 'latents' float32 [h, w, C], 'context' [L, D], 'pooled' [P] of a model. `__getitem__` gives the same
    each time, and raises corrupt.Corrupt for one that cannot be read.

    Beyond these two methods a source may have those of the functions below that bear their names (view, caption,
    captions, buckets, name, unreadable); the functions say what counts without.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Example: ...


def view(source: Examples, i: int, rng: np.random.Generator) -> Example:
    """One showing of example i, such as a random crop or one of its captions; by default the example as it is."""
    return source.view(i, rng) if hasattr(source, 'view') else source[i]


def captions(source: Examples, i: int) -> Sequence[str]:
    """All texts that showings of example i may have; by default the one of `caption`."""
    return source.captions(i) if hasattr(source, 'captions') else [caption(source, i)]


def buckets(source: Examples) -> Sequence[Sequence[int]]:
    """The indices of the examples that may share a batch, being of one shape; by default they all may."""
    return source.buckets if hasattr(source, 'buckets') else (range(len(source)),)


def name(source: Examples, i: int) -> str:
    """Name of example i where it comes from; by default its number."""
    return source.name(i) if hasattr(source, 'name') else str(i)


def caption(source: Examples, i: int) -> str:
    """The text of example i; sources that can tell it without reading the image do."""
    return source.caption(i) if hasattr(source, 'caption') else str(source[i]['text'])


def unreadable(source: Examples) -> Mapping[str, str]:
    """name -> reason of examples that the source left out when it was built; by default there are none."""
    return source.unreadable if hasattr(source, 'unreadable') else {}


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A source with a function applied to each example as it is read."""

    source: Examples
    function: Callable[[Example], Example]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Example:
        return self.function(self.source[i])

    def view(self, i: int, rng: np.random.Generator) -> Example:
        return self.function(view(self.source, i, rng))

    def captions(self, i: int) -> Sequence[str]:
        return captions(self.source, i)

    def variants(self, i: int) -> list[Example]:
        """Example i with each of its captions."""
        example = self.source[i]
        texts = captions(self.source, i) if 'text' in example else ()
        return [self.function(example | {'text': text}) for text in texts] or [self.function(example)]

    @property
    def buckets(self) -> Sequence[Sequence[int]]:
        return buckets(self.source)

    def name(self, i: int) -> str:
        return name(self.source, i)

    @property
    def unreadable(self) -> Mapping[str, str]:
        return unreadable(self.source)


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A source whose examples are rows of arrays [N, ...] that share N."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, i: int) -> Example:
        return {name: array[i] for name, array in self.arrays.items()}


class Batches(Iterator[Batch]):
    """Batches of this host, leaves [its rows, ...].

    Attributes:
        report: what was read and what was skipped, of the batches taken so far.
        waited: seconds spent in waiting for the data.
    """

    def __init__(self, items: Generator[dict[str, Any]], report: Report):
        self._items, self.report, self.waited = items, report, 0.0

    def __next__(self) -> Batch:
        start = time.monotonic()
        item = next(self._items)
        self.waited += time.monotonic() - start
        self.report.add(item['read'], json.loads(item['failures']))
        return item['batch']

    def close(self) -> None:
        """Ends the worker threads and processes."""
        self._items.close()


def batches(
    source: Examples,
    batch_size: int,
    seed: int,
    start: int = 0,
    *,
    rows: Sequence[int] | None = None,
    threads: int = 4,
    workers: int = 0,
    prefetch: int = 4,
    max_corrupt: float = 0.1,
) -> Batches:
    """Batches number start, start + 1, ... of the shuffled, endlessly repeated source.

    Batch n is a pure function of (source, batch_size, seed, n), so a resumed run sees what it would have seen, no
    iterator is saved, and how many hosts, threads or processes there are does not matter. Every epoch has an order of
    its own; order.py says how buckets take turns. An example that cannot be read is replaced by the next one of its
    epoch (and bucket), logged and counted.

    Args:
        batch_size: B, of all hosts together.
        start: number of the first batch.
        rows: of each batch that this host reads, 0 .. B - 1; all by default.
        threads: that read, in each process.
        workers: processes that read; with 0 the threads of this one do. They are spawned: the main program needs its
            `if __name__ == '__main__'`, and the source must survive pickling (a function of Mapped that holds
            parameters takes them along). In them jax has only the CPU.
        prefetch: batches that are read ahead, by each process.
        max_corrupt: the share of examples that may be corrupt, see corrupt.Report.

    Raises:
        ValueError: no examples; batch_size below 1; rows out of range; other bad settings.
        TooManyCorrupt: by `next`, beyond max_corrupt.
    """
    least = dict(batch_size=1, start=0, threads=1, workers=0, prefetch=0)
    given = dict(batch_size=batch_size, start=start, threads=threads, workers=workers, prefetch=prefetch)
    for what, value in given.items():
        if value < least[what]:
            raise ValueError(f'{what} must be at least {least[what]}; got {value}.')
    rows = range(batch_size) if rows is None else rows
    if not len(rows) or min(rows) < 0 or max(rows) >= batch_size:
        raise ValueError(f'rows must be some of 0 .. {batch_size - 1}; got {list(rows)}.')
    members = [bucket for bucket in buckets(source) if len(bucket)]
    if not members:
        raise ValueError('The source has no examples.')
    report = Report(max_corrupt)
    report.add(sum(map(len, members)), unreadable(source).items())
    report.skipped = report.read = 0  # of the whole source; from here on examples that are read count
    reader = _Reader(source, Order(members, batch_size, seed), tuple(rows))
    dataset = grain.MapDataset.range(start, sys.maxsize).map(reader)
    stream = dataset.to_iter_dataset(grain.ReadOptions(threads, max(prefetch, threads)))
    if workers:
        if not flags.FLAGS.is_parsed():  # by a notebook or a test; Grain hands the flags to its processes
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(workers, prefetch), _begin_worker)
    return Batches(iter(stream), report)


def _begin_worker(number: int, count: int) -> None:
    """Leaves accelerators to the main process, should a function of the source use jax."""
    os.environ['JAX_PLATFORMS'] = 'cpu'


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Batch number -> this host's rows of it; what could not be read travels beside them."""

    source: Examples
    order: Order
    rows: Sequence[int]

    def __call__(self, n: int) -> dict[str, Any]:
        places = self.order.places(n)
        examples, failures = [], []
        for row in self.rows:
            example, failed = self._read(places[row])
            examples.append(example)
            failures += failed
        return {'batch': stack(examples), 'read': len(examples), 'failures': json.dumps(failures)}

    def _read(self, place: Place) -> tuple[Example, list[tuple[str, str]]]:
        failures = []
        for epoch, index in self.order.candidates(place):
            try:
                return view(self.source, index, self.order.rng(epoch, index)), failures
            except Corrupt as error:
                failures.append((error.name, error.reason))
            if len(failures) == PATIENCE:
                break
        raise ValueError(
            f'{len(failures)} examples in a row cannot be read, the first {failures[0][0]}: {failures[0][1]}. '
            'Are the data still there?'
        )


def in_order(
    source: Examples, batch_size: int, report: Report | None = None, *, every_caption: bool = False
) -> Iterator[Batch]:
    """The whole source once, bucket by bucket in order; batches may be smaller, or larger by the captions of one image.

    An example with several captions is there once with the first, or with every_caption once with each (of a source
    that is Mapped). Examples that cannot be read are left out, logged and counted in the report.
    """
    report = Report() if report is None else report
    variants = source.variants if every_caption and hasattr(source, 'variants') else lambda i: [source[i]]
    for members in buckets(source):
        for first in range(0, len(members), batch_size):
            rows, failures = [], []
            for i in members[first : first + batch_size]:
                try:
                    rows += variants(int(i))
                except Corrupt as error:
                    failures.append((error.name, error.reason))
            report.add(len(rows), failures)
            if rows:
                yield stack(rows)


def first_readable(source: Examples) -> Example:
    """The first example that is not corrupt. Raises ValueError when none of the first 1000 can be read."""
    failure = 'it is empty'
    for i in range(min(len(source), PATIENCE)):
        try:
            return source[i]
        except Corrupt as error:
            failure = str(error)
    raise ValueError(f'The source has no example that can be read: {failure}.')


def stack(examples: Sequence[Example]) -> Batch:
    """Examples to one batch, leaves [B, ...]. Raises ValueError when their shapes differ."""
    try:
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}
    except ValueError:
        shapes = {name: sorted({np.shape(example[name]) for example in examples}) for name in examples[0]}
        raise ValueError(
            f'The examples of a batch have several shapes: {shapes}. Give the source an image_size, or put '
            "dict(name='crops', source=...) or dict(name='buckets', source=...) around it."
        ) from None
