"""The cells of a sweep computed, those that are there already left as they are."""

from __future__ import annotations

from collections.abc import Sequence

from ldm_jax.progress import Meter
from ldm_jax.sweeps.definition import Cell, Sweep
from ldm_jax.sweeps.results import Results
from ldm_jax.training.preemption import Preempted


def run(sweep: Sweep, results: Results, shard: tuple[int, int] = (0, 1)) -> None:
    """Computes the cells that have no result yet; one that fails is noted and the rest go on.

    Cells of a group are computed together and written one by one. A process that is killed loses the group that it
    was at; what was written is never computed again.

    shard: (i, n) takes every n-th group from the i-th on, for n processes that share a folder.
    """
    groups = sweep.kind.groups(sweep.cells)[shard[0] :: shard[1]]
    meter = Meter(sum(map(len, groups)), 'cells', done=sum(results.has(c.key) for g in groups for c in g))
    for group in groups:
        if all(results.has(cell.key) for cell in group):
            continue
        with results.claimed(group[0].key):
            missing = [cell for cell in group if not results.has(cell.key)]
            _compute(sweep, results, missing, meter)
    meter.close()


def _compute(sweep: Sweep, results: Results, cells: Sequence[Cell], meter: Meter) -> None:
    """A group; one that fails is computed again cell by cell, so that its error is only the guilty cell's."""
    if not cells:
        return
    results.forget_failures(cells)
    try:
        made = sweep.kind.compute(cells, results)
        for cell, result in zip(cells, made, strict=True):
            _keep(results, cell, result)
            meter.advance()
    except Preempted:
        raise
    except Exception as error:
        if len(cells) == 1:
            results.fail(cells[0], error)
            meter.advance()
            return
        for cell in cells:
            if not results.has(cell.key) and not results.failures([cell]):
                _compute(sweep, results, [cell], meter)


def _keep(results: Results, cell: Cell, result) -> None:
    try:
        results.write(cell, result)
    except ValueError as error:
        results.fail(cell, error)


def missing(sweep: Sweep, results: Results) -> list[Cell]:
    """The cells without a result."""
    return [cell for cell in sweep.cells if not results.has(cell.key)]
