"""Rows as a CSV file and as a Markdown table, each number with its interval, and which rows no other one beats."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ldm_jax.build import unknown
from ldm_jax.evaluation.direction import sign
from ldm_jax.sweeps.definition import SEED, Sweep, short
from ldm_jax.sweeps.statistics import Estimate, Row, tie


@dataclasses.dataclass(frozen=True)
class Report:
    """What a sweep's report shows: the config's `report`.

    quality: the number that is plotted and ranked; the first one that is no cost by default.
    cost: what it is plotted against. line, facet: settings by which points are joined, and plots are apart.
    x, y: settings along the sides of the image grid. larger: further numbers of which more is better.
    """

    quality: str = ''
    cost: str = 'evaluations'
    line: str = ''
    facet: str = ''
    x: str = ''
    y: str = ''
    larger: tuple[str, ...] = ()

    def better(self, name: str) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if name in self.larger else sign(name)


def report(sweep: Sweep, rows: Sequence[Row]) -> Report:
    """The config's report, its open fields filled in. Raises ValueError for names that rows do not have."""
    given = dict(sweep.config.get('report', {}))
    known = [field.name for field in dataclasses.fields(Report)]
    for name in given:
        if name not in known:
            raise unknown('field of report', name, known)
    made = Report(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})
    names, varied = numbers(rows), [name for name in sweep.varied if name != SEED]
    costs = {*getattr(sweep.kind, 'cost', ()), 'num_steps'}
    first = next((name for name in names if name not in costs), '')
    budget = {'evaluations', 'num_steps'}
    axes = sorted(varied, key=lambda name: name in budget)
    made = dataclasses.replace(
        made,
        quality=made.quality or first,
        line=made.line or (axes[0] if axes else ''),
        facet=made.facet or (axes[1] if len(axes) > 1 and axes[1] not in budget else ''),
        x=made.x or (axes[-1] if axes else ''),
        y=made.y or (axes[0] if len(axes) > 1 else ''),
    )
    if made.cost not in names and 'cost' not in given:
        made = dataclasses.replace(made, cost='')
    for name in filter(None, (made.quality, given.get('cost'))):
        if name not in names:
            raise unknown('number of this sweep', name, names)
    for name in filter(None, (made.line, made.facet, made.x, made.y)):
        if name not in varied:
            raise unknown('varied setting of this sweep', name, varied)
    return made


def numbers(rows: Sequence[Row]) -> list[str]:
    """The names of all numbers, in order."""
    return list(dict.fromkeys(name for row in rows for name in row.numbers))


def settings(sweep: Sweep) -> list[str]:
    """The settings in which rows differ."""
    return [name for name in sweep.varied if name != SEED]


def front(rows: Sequence[Row], cost: str, quality: str, sign: int) -> list[Row]:
    """The rows that no other one beats in quality at the same cost or less, cheapest first."""
    having = [row for row in rows if cost in row.numbers and quality in row.numbers]
    found: list[Row] = []
    for row in sorted(having, key=lambda row: (row.numbers[cost].value, -sign * row.numbers[quality].value)):
        if not found or sign * (row.numbers[quality].value - found[-1].numbers[quality].value) > 0:
            found.append(row)
    return found


def best(rows: Sequence[Row], quality: str, sign: int) -> list[Row]:
    """The best row and those that tie with it: the paired interval of the difference has zero in it."""
    having = [row for row in rows if quality in row.numbers]
    if not having:
        return []
    first = max(having, key=lambda row: sign * row.numbers[quality].value)
    return [first] + [row for row in having if row is not first and _tied(row, first, quality)]


def _tied(a: Row, b: Row, name: str) -> bool:
    pair = a.numbers[name], b.numbers[name]
    paired = pair[0].count == pair[1].count and all(each.replicates is not None for each in pair)
    return paired and tie(*pair)


def as_csv(sweep: Sweep, rows: Sequence[Row]) -> str:
    """One line a row: its settings, then each number, the ends of its interval and its count."""
    out = io.StringIO()
    names, varied = numbers(rows), settings(sweep)
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(
        [*varied, *(column for n in names for column in (n, f'{n}_low', f'{n}_high', f'{n}_count'))]
    )
    for row in rows:
        line: list[Any] = [short(row.settings.get(name)) for name in varied]
        for name in names:
            found = row.numbers.get(name)
            line += ['', '', '', ''] if found is None else [_exact(v) for v in (found.value, *found.interval)]
            line += [] if found is None else [found.count]
        writer.writerow(line)
    return out.getvalue()


def as_markdown(sweep: Sweep, rows: Sequence[Row]) -> str:
    """The same for people: value [low, high]."""
    names, varied = numbers(rows), settings(sweep)
    lines = ['| ' + ' | '.join([*varied, *names]) + ' |', '|' + '---|' * (len(varied) + len(names))]
    for row in rows:
        cells = [short(row.settings.get(name, '')) for name in varied]
        cells += [shown(row.numbers.get(name)) for name in names]
        lines.append('| ' + ' | '.join(cells) + ' |')
    counts = _counts(rows, names)
    return '\n'.join([*lines, '', f'Intervals of 95 % by the bootstrap; {counts}.', ''])


def _counts(rows: Sequence[Row], names: Sequence[str]) -> str:
    """What each interval is of."""
    found: Mapping[str, list[int]] = {
        n: sorted({row.numbers[n].count for row in rows if n in row.numbers}) for n in names
    }
    return ', '.join(f'{name} of {"/".join(map(str, counts))}' for name, counts in found.items())


def shown(estimate: Estimate | None) -> str:
    """A number for people, with its interval where it has one."""
    if estimate is None:
        return ''
    if estimate.replicates is None:
        return f'{estimate.value:.4g}'
    low, high = estimate.interval
    return f'{estimate.value:.4g} [{low:.4g}, {high:.4g}]'


def _exact(value: float) -> str:
    return f'{value:.6g}'
