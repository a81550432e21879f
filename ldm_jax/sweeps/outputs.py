"""All that a sweep leaves for people in its folder: table.csv, table.md, plots, image grids and report.html."""

from __future__ import annotations

import pathlib

from ldm_jax import atomic
from ldm_jax.images import save_png
from ldm_jax.sweeps import image_grid, page, plots, statistics, tables
from ldm_jax.sweeps.definition import Sweep
from ldm_jax.sweeps.results import Results
from ldm_jax.sweeps.statistics import Row

REPORT, CSV, MARKDOWN = 'report.html', 'table.csv', 'table.md'


def write(sweep: Sweep, results: Results, command: str) -> list[Row]:
    """Writes them from the cells that have results, and returns the rows.

    Raises ValueError when there are none.
    """
    rows = statistics.rows(sweep, results)
    failures = results.failures(sweep.cells)
    if not rows:
        raise ValueError(
            f'No cell has a result. The first failure: {next(iter(failures.values()), "none ran")}'
        )
    report, folder = tables.report(sweep, rows), results.folder
    atomic.write(folder / CSV, tables.as_csv(sweep, rows))
    atomic.write(folder / MARKDOWN, tables.as_markdown(sweep, rows))
    drawn = {}
    for cost in dict.fromkeys((report.cost, 'seconds')):
        png = plots.pareto(sweep, rows, report, cost) if cost else None
        if png is not None:
            drawn[f'{report.quality} against {cost}'] = png
            atomic.write(folder / f'{report.quality}_{cost}.png', png)
    made = {}
    for number, (name, sheet) in enumerate(image_grid.sheets(sweep, rows, results, report)):
        path: pathlib.Path = folder / f'images_{number}.png'
        save_png(path, sheet)
        made[name] = path.read_bytes()
    atomic.write(folder / REPORT, page.page(sweep, rows, report, drawn, made, failures, command))
    return rows
