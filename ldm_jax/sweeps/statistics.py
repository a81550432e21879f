"""Rows of a sweep's table: cells that differ in the seed alone, as one number with its interval.

Scores of images are averaged over all images of all seeds, numbers of sets are of all their rows together, and numbers
of whole cells, such as those of a training run, are averaged over the cells. Intervals of 95 % are by the bootstrap:
images, or cells where there is one number a cell, are drawn again with replacement. All rows draw the same ones, since
they share noise and prompts, so that the difference of two rows has a paired interval, which is much narrower.
Ref: Efron & Tibshirani 1993, chapters 6 and 13.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ldm_jax.sweeps.definition import SEED, Cell, Sweep, text
from ldm_jax.sweeps.results import Result, Results

REPLICATES, SET_REPLICATES = 1000, 100  # of sets fewer, each of which is a covariance
LEVEL = (2.5, 97.5)  # percentiles


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
    """A number, the count of what it is a mean of, and its bootstrap replicates [R], none for a plain number."""

    value: float
    count: int
    replicates: np.ndarray | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end; the value twice where there is nothing to draw again."""
        if self.replicates is None:
            return self.value, self.value
        low, high = np.percentile(self.replicates, LEVEL)
        return float(low), float(high)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """Cells that differ in the seed alone."""

    settings: Mapping[str, Any]
    cells: Sequence[Cell]
    numbers: Mapping[str, Estimate]


def rows(sweep: Sweep, results: Results) -> list[Row]:
    """The rows of the cells that have results, in the order of the sweep."""
    found: dict[str, list[Cell]] = {}
    for cell in sweep.cells:
        if results.has(cell.key):
            rest = {name: value for name, value in cell.settings.items() if name != SEED}
            found.setdefault(text(rest), []).append(cell)
    made = []
    for cells in found.values():
        read = [results.read(cell.key) for cell in cells]
        settings = {name: value for name, value in cells[0].settings.items() if name != SEED}
        made.append(Row(settings, cells, estimates(sweep, results, settings, read)))
    return made


def estimates(
    sweep: Sweep, results: Results, settings: Mapping[str, Any], read: Sequence[Result]
) -> dict[str, Estimate]:
    """The numbers of a row."""
    found = {}
    for name in read[0].scores():
        found[name] = of_scores(np.concatenate([each.scores()[name] for each in read]))
    if all('rows/features' in each.arrays for each in read):
        features = np.concatenate([each.arrays['rows/features'] for each in read])
        reference = sweep.kind.reference_rows(results, settings)
        for metric in sweep.kind.set_metrics():
            found |= of_set(metric, features, reference)
    cost = getattr(sweep.kind, 'cost', ())
    for name in read[0].numbers:
        values = np.array([each.numbers[name] for each in read if name in each.numbers])
        found[name] = Estimate(float(values.mean()), len(values)) if name in cost else of_scores(values)
    return found


def of_scores(scores: np.ndarray) -> Estimate:
    """The mean of scores [N]."""
    if len(scores) < 2:
        return Estimate(float(scores.mean()), len(scores))
    return Estimate(float(scores.mean()), len(scores), scores[_draws(len(scores), REPLICATES)].mean(1))


def of_set(metric: Any, rows: np.ndarray, reference: np.ndarray) -> dict[str, Estimate]:
    """A metric of a set of rows [N, D] against the reference's."""
    fixed = metric.update(metric.init(), reference, np.arange(len(reference)))

    def result(chosen: np.ndarray) -> dict[str, float]:
        return metric.result(metric.update(metric.init(), chosen, np.arange(len(chosen))), fixed)

    value = result(rows)
    again = [result(rows[drawn]) for drawn in _draws(len(rows), SET_REPLICATES)]
    found = {}
    for name in value:
        replicates = np.array([each[name] for each in again])
        # Sets with repetitions are farther from the reference than sets without: their mean says how much.
        found[name] = Estimate(value[name], len(rows), value[name] + replicates - replicates.mean())
    return found


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b, paired: their replicates drew the same images. Raises ValueError for other counts."""
    if a.count != b.count or a.replicates is None or b.replicates is None:
        raise ValueError(f'Only numbers of as many images are paired; got {a.count} and {b.count}.')
    return Estimate(a.value - b.value, a.count, a.replicates - b.replicates)


def tie(a: Estimate, b: Estimate) -> bool:
    """Whether the paired difference of two numbers may be zero."""
    low, high = difference(a, b).interval
    return low <= 0 <= high


@functools.lru_cache(16)
def _draws(count: int, replicates: int) -> np.ndarray:
    """[replicates, count] indices, the same for all rows of a sweep."""
    return np.random.default_rng(0).integers(count, size=(replicates, count))
