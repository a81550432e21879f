"""Plots of quality against cost, one beside the other for each value of a setting, with intervals as bands."""

from __future__ import annotations

import io
from collections.abc import Sequence

from ldm_jax.sweeps.definition import Sweep, short
from ldm_jax.sweeps.statistics import Row
from ldm_jax.sweeps.tables import Report, front

COLUMNS = 2
MISSING = "Plots are drawn by matplotlib: pip install 'ldm_jax[sweeps]'."


def check() -> None:
    """Raises ModuleNotFoundError with the way out where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(MISSING, name='matplotlib') from error


def pareto(sweep: Sweep, rows: Sequence[Row], report: Report, cost: str) -> bytes | None:
    """A PNG of the quality against a cost, the front of all rows dashed; None where rows lack either."""
    check()
    from matplotlib.figure import Figure

    rows = [row for row in rows if cost in row.numbers and report.quality in row.numbers]
    if not rows:
        return None
    facets = list(dict.fromkeys(short(row.settings.get(report.facet)) for row in rows))
    lines = list(dict.fromkeys(short(row.settings.get(report.line)) for row in rows))
    high = -(-len(facets) // COLUMNS)
    wide = min(len(facets), COLUMNS)
    figure = Figure(figsize=(5.2 * wide + 2.2, 3.6 * high), layout='constrained')
    axes = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=True).ravel()
    best = [
        _point(row, cost, report.quality)
        for row in front(rows, cost, report.quality, report.better(report.quality))
    ]
    for place, facet in zip(axes, facets, strict=False):
        here = [row for row in rows if short(row.settings.get(report.facet)) == facet]
        for i, line in enumerate(lines):
            own = [row for row in here if short(row.settings.get(report.line)) == line]
            _line(place, sorted(own, key=lambda row: row.numbers[cost].value), cost, report, line, i)
        place.plot(
            *zip(*best, strict=True), color='black', linestyle='--', linewidth=0.8, label='front of all'
        )
        place.set(title=facet if report.facet else '', xlabel=_label(cost), ylabel=report.quality)
        if all(row.numbers[report.quality].value > 0 for row in rows):
            place.set_yscale('log')
        place.grid(alpha=0.3)
    for place in axes[len(facets) :]:
        place.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside right upper', fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format='png', dpi=90)
    return out.getvalue()


def _line(place, rows: Sequence[Row], cost: str, report: Report, label: str, number: int) -> None:
    if not rows:
        return
    x = [row.numbers[cost].value for row in rows]
    estimates = [row.numbers[report.quality] for row in rows]
    low, high = zip(*(each.interval for each in estimates), strict=True)
    style = dict(color=f'C{number % 10}', linestyle=('-', '-.', ':')[number // 10 % 3])
    place.plot(x, [each.value for each in estimates], marker='.', label=label, **style)
    place.fill_between(x, low, high, alpha=0.15, color=style['color'])


def _point(row: Row, cost: str, quality: str) -> tuple[float, float]:
    return row.numbers[cost].value, row.numbers[quality].value


def _label(cost: str) -> str:
    return 'seconds an image' if cost == 'seconds' else cost
