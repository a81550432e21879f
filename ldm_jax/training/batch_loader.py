"""The data of a run: from the loader to the devices, one batch ahead of the step, and the proof that they are the same.

The batch of a step follows from (data, batch size, seed, step), so the step is the position, and whether the data are
those of before shows in their number and in the last batch that was used.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from ldm_jax.data import pipeline
from ldm_jax.training.parallel.backend import Backend
from ldm_jax.training.preemption import Preemption, in_thread
from ldm_jax.training.run import Run
from ldm_jax.types import PyTree

SHOWN = 16  # examples in images


class Batch(NamedTuple):
    """A batch of a step."""

    host: PyTree  # this process's rows, as they were read
    devices: PyTree  # all of it
    corrupt: int  # examples of this process's rows that could not be read and were replaced


class BatchLoader:
    """The batches of a run from one step on. A context manager: leaving it ends the reading.

    Args:
        step: the number of the first batch, which is that of the updates made before.
    """

    def __init__(
        self, examples: pipeline.Examples, run: Run, spread: Backend, preemption: Preemption, step: int
    ):
        self._examples, self._run, self._spread, self._preemption = examples, run, spread, preemption
        self._rows = spread.rows(run.batch_size)
        # The last batch that was used is read again, to see that it is the same.
        self._batches = self._open(run.batch_size, max(step - 1, 0), self._rows)
        self._used = next(self._batches) if step else None
        self._skipped = self._batches.report.skipped
        self._next: Any = None

    def close(self) -> None:
        """Ends the reading."""
        self._batches.close()

    def take(self) -> Batch:
        """The next batch. Raises Preempted as soon as a signal comes, and what reading raised."""
        if self._next is None:
            self._next = in_thread(self._read)
        batch = self._preemption.wait(self._next)
        self._next = in_thread(self._read)
        return batch

    def used(self, batch: Batch) -> None:
        """The step of this batch has been started: it is the newest that a checkpoint may record."""
        self._used = batch.host

    def shown(self) -> PyTree:
        """Examples for images, the same throughout the run and on all hosts: the first of the first batch."""
        size = min(SHOWN, self._run.batch_size)
        batches = self._open(self._run.batch_size, 0, range(size), prefetch=0, workers=0)
        try:
            return self._preemption.wait(in_thread(lambda: next(batches)))
        finally:
            batches.close()

    def summary(self) -> dict[str, Any]:
        """A summary that differs for other data, as plain data. All processes must call it together."""
        found = {
            'seed': self._run.seed,
            'batch_size': self._run.batch_size,
            'examples': len(self._examples),
        }
        if self._used is not None:
            found['batch_crc32'] = self._crc32()
        return found

    def check(self, stored: Mapping[str, Any]) -> None:
        """Raises ValueError when the data that the run goes on with are not those that it began with."""
        now = self.summary()
        changed = {
            name: (stored.get(name), value) for name, value in now.items() if stored.get(name) != value
        }
        if changed:
            raise ValueError(
                f'The run cannot go on: its data are not those that it began with (then, now): {changed}. Give the '
                'old data, batch size and seed back, or start in another workdir.'
            )

    def report(self) -> pipeline.Report:
        """The counts of examples that this process has read and skipped."""
        return self._batches.report

    def _open(self, batch_size: int, start: int, rows: Any, **changed: int) -> pipeline.Batches:
        loader = vars(self._run.loader) | changed
        return pipeline.batches(self._examples, batch_size, self._run.seed, start, rows=rows, **loader)

    def _read(self) -> Batch:
        batch = next(self._batches)
        skipped, self._skipped = self._batches.report.skipped - self._skipped, self._batches.report.skipped
        return Batch(batch, self._spread.shard(batch, self._run.batch_size), skipped)

    def _crc32(self) -> str:
        """The checksum of the last batch that was used, whichever processes have which rows of it."""
        rows = np.array(self._rows, np.uint32)
        sums = np.array([_crc32(self._used, i) for i in range(len(rows))], np.uint32)
        if jax.process_count() > 1:
            rows, sums = (np.asarray(multihost_utils.process_allgather(a)).ravel() for a in (rows, sums))
        first = np.unique(rows, return_index=True)[1]  # several processes may have one row
        return f'{zlib.crc32(sums[first].astype(np.uint32).tobytes()):08x}'


def _crc32(batch: PyTree, row: int) -> int:
    value = 0
    for leaf in jax.tree.leaves(batch):
        value = zlib.crc32(np.ascontiguousarray(leaf[row]).reshape(-1).view(np.uint8), value)
    return value
