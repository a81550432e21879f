"""What tools/sweep.py does: from a file and flags to results and report."""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ldm_jax.sweeps import definition, outputs, plots
from ldm_jax.sweeps import run as runs
from ldm_jax.sweeps.definition import Sweep
from ldm_jax.sweeps.results import Results
from ldm_jax.training import overrides


def load(config: Mapping[str, Any], changes: Iterable[tuple[str, str]] = ()) -> Sweep:
    """The sweep of a config, with each (dotted name, text) set. Raises ValueError as `definition.sweep`."""
    config = copy.deepcopy(dict(config))
    for name, text in changes:
        node: Any = config
        *path, last = name.split('.')
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, Mapping):
                raise ValueError(f'{overrides.PREFIX}{name}: {part} is a value; give it whole.')
        node[last] = overrides.parsed(name, text, overrides.ANY)
    return definition.sweep(config)


def shard(text: str | None) -> tuple[int, int] | None:
    """(i, n) of 'i/n'. Raises ValueError for anything else."""
    if text is None:
        return None
    number, _, count = text.partition('/')
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ValueError(f'--shard is i/n with i from 0 to n - 1, such as 0/8; got {text!r}.')
    return int(number), int(count)


def options(given: Sequence[str]) -> dict[str, Any]:
    """Options of an executor from NAME=VALUE. Raises ValueError for one without a value."""
    found = {}
    for each in given:
        name, equals, value = each.partition('=')
        if not equals:
            raise ValueError(f'--executor_option is NAME=VALUE; got {each!r}.')
        found[name] = overrides.parsed(name, value, overrides.ANY)
    return found


def listing(sweep: Sweep, out: pathlib.Path) -> str:
    """The cells, those with a result marked."""
    results = Results(out)
    lines = [
        f'{"done" if results.has(cell.key) else "    "} {cell.key} {cell.named(sweep.varied)}'
        for cell in sweep.cells
    ]
    groups = sweep.kind.groups(sweep.cells)
    return '\n'.join([*lines, f'{len(sweep.cells)} cells in {len(groups)} groups'])


def run(sweep: Sweep, out: pathlib.Path, shard: tuple[int, int] | None, line: str) -> int:
    """Computes what is missing and reports: the exit code, 1 where a cell failed."""
    results = Results(out)
    if shard is None:
        plots.check()  # before hours of work
    runs.run(sweep, results, shard or (0, 1))
    failures = results.failures(sweep.cells)
    for cell in sweep.cells:
        if cell.key in failures:
            print(f'failed: {cell.named(sweep.varied)}: {failures[cell.key]}', flush=True)
    if shard is not None:
        return int(bool(failures))
    rows = outputs.write(sweep, results, line)
    print(f'{len(rows)} rows of {len(sweep.cells)} cells, {len(failures)} failed: {out / outputs.REPORT}')
    return int(bool(failures))
