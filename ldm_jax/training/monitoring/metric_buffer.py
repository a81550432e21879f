"""Metrics between two log lines, and the watch over numbers that are not finite.

Metrics stay on the device until LAG steps later, so that the host is never far ahead and never waits for the step it
has just started. (On CPUs a long queue of collective steps also aborts: 'threads to join the rendezvous'.)
"""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax.errors import Failed
from ldm_jax.types import PyTree

LAG = 2
# Summed over a window, as '<name>_count' is, which weighs the metric <name> in its average.
NONFINITE, CORRUPT = 'nonfinite', 'corrupt'
SUMMED = (NONFINITE, CORRUPT)

Values = dict[str, Any]  # name -> float, or list of floats


class NonFinite(Failed):
    """The loss or a gradient of a step was not finite, and the run's policy is to stop."""


class MetricBuffer:
    """Takes the metrics of each step and averages them when asked.

    Args:
        pick: what a backend returns as metrics -> one value of each.
        values: of the steps since the last log line, as an earlier process left them.
        stop: raise NonFinite at a step whose loss or gradient is not finite, its batch saved, instead of counting.
        folder: where such a batch is saved.
        together: sums over the processes of integers [n] that each has.
    """

    def __init__(
        self,
        pick: Callable[[PyTree], PyTree],
        values: Sequence[Values] = (),
        stop: bool = False,
        folder: pathlib.Path = pathlib.Path(),
        together: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ):
        self._pick, self._stop, self._folder, self._together = pick, stop, folder, together
        self._corrupt: list[int] = []  # of this process, of the steps at the end of values
        self._values: list[Values] = list(values)
        self._waiting: collections.deque[tuple[int, PyTree, PyTree, int]] = collections.deque()

    def add(self, step: int, batch: PyTree, metrics: PyTree, corrupt: int = 0) -> None:
        """Adds the metrics of the step that made state number `step` from the host's rows of a batch.

        corrupt: examples that this process could not read for it.
        """
        self._waiting.append((step, batch, metrics, corrupt))
        while len(self._waiting) > LAG:
            self._take()

    def values(self) -> list[Values]:
        """Those of each step since the last line, as plain data: enough to go on from.

        All processes must call it together.
        """
        while self._waiting:
            self._take()
        if self._corrupt:
            totals = self._together(np.array(self._corrupt, np.int32))
            for values, total in zip(self._values[-len(totals) :], totals, strict=True):
                values[CORRUPT] = float(total)
            self._corrupt = []
        return self._values

    def put_back(self, values: Sequence[Values]) -> None:
        """Steps that were closed count as open again."""
        self._values = list(values)

    def close(self) -> Values:
        """Averages over the steps since the last line, without values that are not finite, and begins anew."""
        values = self.values()
        self._values = []
        return _reduced({name: [value[name] for value in values] for name in values[0]})

    def _take(self) -> None:
        step, batch, metrics, corrupt = self._waiting.popleft()
        values = {name: np.asarray(value, np.float64).tolist() for name, value in self._pick(metrics).items()}
        if NONFINITE not in values:
            values[NONFINITE] = float(not np.isfinite(values['loss']).all())
        if values[NONFINITE] and self._stop:
            raise self._stopped(step, batch, values)
        self._values.append(values)
        self._corrupt.append(corrupt)

    def _stopped(self, step: int, batch: PyTree, values: Values) -> NonFinite:
        path = self._folder / f'nonfinite_{step:07}_host{jax.process_index()}.npz'
        np.savez(path, **{jax.tree_util.keystr(k, simple=True, separator='.'): v for k, v in _leaves(batch)})
        bad = [name for name, value in values.items() if not np.isfinite(value).all()]
        return NonFinite(
            f'Step {step} is not finite (in its metrics: {bad}); its batch is saved as {path}. Earlier checkpoints '
            "are whole. Lower optimizer.lr, or set run.nonfinite='skip' to leave such updates out and count them."
        )


def _leaves(batch: PyTree) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(batch)[0]


def _reduced(found: Mapping[str, Sequence[Any]]) -> Values:
    """One value of each metric of the steps' [steps, ...]."""
    arrays = {name: np.asarray(values, np.float64) for name, values in found.items()}
    reduced = {}
    for name, array in arrays.items():
        if name in SUMMED or name.removesuffix('_count') in arrays.keys() - {name}:
            reduced[name] = array.sum(axis=0).tolist()
            continue
        weights = np.where(np.isfinite(array), arrays.get(f'{name}_count', 1.0), 0.0)
        total, weight = (np.where(weights > 0, array, 0) * weights).sum(axis=0), weights.sum(axis=0)
        reduced[name] = np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan).tolist()
    return reduced
