"""A sweep on one page that needs nothing else: report.html with table, plots, image grids, command and environment."""

from __future__ import annotations

import base64
import html
import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping, Sequence

import jax

from ldm_jax.sweeps.definition import Sweep, short
from ldm_jax.sweeps.statistics import Row
from ldm_jax.sweeps.tables import Report, best, front, numbers, settings, shown

PACKAGES = ('ldm_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'scipy')
STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse } th { cursor: pointer; border-bottom: 1px solid #999; user-select: none }
td, th { text-align: right; padding: 1px 10px } td small { color: #777 }
tr.front td { font-weight: 600 } tr.best td:first-child::after { content: ' \\2605' }
img { max-width: 100%; image-rendering: pixelated } .plot img { image-rendering: auto }
pre { background: #f4f4f4; padding: 1em; overflow: auto } .failed { color: #a00 }
"""
SORT = """
for (const th of document.querySelectorAll('th')) th.onclick = () => {
  const body = th.closest('table').tBodies[0], i = th.cellIndex, up = th.dataset.up !== '1';
  th.dataset.up = up ? '1' : '0';
  const of = row => row.cells[i].dataset.value, numeric = a => a !== '' && !isNaN(a);
  [...body.rows].sort((p, q) => {
    const [a, b] = [of(p), of(q)];
    const order = numeric(a) && numeric(b) ? a - b : a.localeCompare(b);
    return up ? order : -order;
  }).forEach(row => body.append(row));
};
"""


def page(
    sweep: Sweep,
    rows: Sequence[Row],
    report: Report,
    plots: Mapping[str, bytes],
    sheets: Mapping[str, bytes],
    failures: Mapping[str, str],
    command: str,
) -> str:
    """The page.

    Args:
        plots, sheets: PNG files by title.
        failures: key of a cell -> its error.
        command: that made the sweep, as it was written.
    """
    title = html.escape(sweep.title)
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>',
        f'<h1>{title}</h1><p>{len(sweep.cells)} cells, {len(rows)} rows, {len(failures)} failed.</p>',
        *_failures(sweep, failures),
        '<h2>Plots</h2>',
        *(_figure(name, data, 'plot') for name, data in plots.items()),
        '<h2>Table</h2><p>A click on a column sorts by it. Bold: the front, which nothing beats at its cost. '
        f'&#9733;: the best {html.escape(report.quality)}, and what ties with it in a paired comparison.</p>',
        _table(sweep, rows, report),
        '<h2>Images</h2>',
        *(_figure(name, data, 'sheet') for name, data in sheets.items()),
        f'<h2>Command</h2><pre>{html.escape(command)}</pre>',
        f'<h2>Environment</h2><pre>{html.escape(json.dumps(environment(), indent=2))}</pre>',
        f'<h2>Config</h2><pre>{html.escape(json.dumps(sweep.config, indent=2, default=str))}</pre>',
        f'<script>{SORT}</script></html>',
    ]
    return '\n'.join(parts) + '\n'


def environment() -> dict[str, str]:
    """Versions and devices that a result depends on."""
    found = {'python': sys.version.partition(' ')[0], 'platform': platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = 'not installed as a package'
    devices = jax.devices()
    return found | {'devices': f'{len(devices)} x {devices[0].device_kind}'}


def _failures(sweep: Sweep, failures: Mapping[str, str]) -> list[str]:
    cells = {cell.key: cell for cell in sweep.cells}
    return [
        f'<p class="failed">{html.escape(cells[key].named(sweep.varied))}: {html.escape(error)}</p>'
        for key, error in failures.items()
    ]


def _table(sweep: Sweep, rows: Sequence[Row], report: Report) -> str:
    names, varied, sign = numbers(rows), settings(sweep), report.better(report.quality)
    marked = {id(row) for row in front(rows, report.cost, report.quality, sign)}
    first = {id(row) for row in best(rows, report.quality, sign)}
    head = ''.join(f'<th>{html.escape(name)}</th>' for name in [*varied, *names])
    lines = []
    for row in rows:
        cells = [(short(row.settings.get(name, '')),) * 2 for name in varied]
        for name in names:
            found = row.numbers.get(name)
            cells.append(('' if found is None else repr(found.value), shown(found)))
        kind = ' '.join(['front'] * (id(row) in marked) + ['best'] * (id(row) in first))
        lines.append(f'<tr class="{kind}">' + ''.join(_cell(*cell) for cell in cells) + '</tr>')
    return f'<table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _cell(value: str, text: str) -> str:
    number, bracket, interval = text.partition(' [')
    small = f' <small>[{html.escape(interval)}</small>' if bracket else ''
    return f'<td data-value="{html.escape(value)}">{html.escape(number)}{small}</td>'


def _figure(name: str, png: bytes, kind: str) -> str:
    data = base64.b64encode(png).decode()
    label = html.escape(name)
    return (
        f'<figure class="{kind}"><figcaption>{label}</figcaption>'
        f'<img alt="{label}" src="data:image/png;base64,{data}"></figure>'
    )
