"""A run on one page that needs nothing else: report.html with curves, images and the config."""

from __future__ import annotations

import base64
import html
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ldm_jax import atomic
from ldm_jax.training.monitoring import writers

REPORT = 'report.html'
SHOWN = 6  # images of each kind, from the first to the last
WIDTH, HEIGHT, LEFT, BOTTOM = 420, 220, 60, 24  # of a curve, in pixels
STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; color: #222 }
figure { display: inline-block; margin: 8px; vertical-align: top } figcaption { color: #555 }
img { image-rendering: pixelated; max-width: 320px } svg text { font-size: 11px; fill: #555 }
td, th { text-align: right; padding: 1px 10px } th:first-child, td:first-child { text-align: left }
pre { background: #f4f4f4; padding: 1em; overflow: auto }
"""


def write(workdir: str, config: Mapping[str, Any]) -> pathlib.Path:
    """Writes workdir/report.html from the metrics and images there; it appears whole. Returns its path."""
    root = pathlib.Path(workdir)
    lines = writers.read_metrics(root)
    parts = [
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(root.name)}</title><style>{STYLE}</style>',
        f'<h1>{html.escape(root.name)}</h1>',
        _summary(lines),
        *_changes(root),
        '<h2>Curves</h2>',
        *(_curve(name, lines) for name in _names(lines)),
        '<h2>Images</h2>',
        *_strips(root / writers.IMAGES),
        f'<h2>Config</h2><pre>{html.escape(json.dumps(dict(config), indent=2))}</pre>',
    ]
    path = root / REPORT
    atomic.write(path, '\n'.join(parts) + '\n', alone=True)
    return path


def _names(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for line in lines for name in line if name != 'step')
    return sorted(names, key=lambda name: ('loss' not in name, name))


def _summary(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return '<p>No metrics were written.</p>'
    rows = ''.join(
        f'<tr><td>{html.escape(name)}</td><td>{_text(lines[0].get(name))}</td><td>{_text(lines[-1].get(name))}</td></tr>'
        for name in _names(lines)
    )
    head = f'<tr><th>metric</th><th>step {lines[0]["step"]}</th><th>step {lines[-1]["step"]}</th></tr>'
    return f'<table>{head}{rows}</table>'


def _changes(root: pathlib.Path) -> list[str]:
    """The settings with which the run went on at some step, if there are any."""
    rows = [
        f'<tr><td>{html.escape(name)}</td><td>{step}</td><td>{html.escape(str(old))}</td><td>{html.escape(str(new))}</td></tr>'
        for step, settings in writers.read_changes(root)
        for name, (old, new) in settings.items()
    ]
    head = '<tr><th>setting</th><th>from step</th><th>old</th><th>new</th></tr>'
    return [f'<h2>Changed settings</h2><table>{head}{"".join(rows)}</table>'] if rows else []


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ', '.join(map(_text, value))
    return '' if value is None or not math.isfinite(value) else f'{value:.4g}'


def _curve(name: str, lines: Sequence[Mapping[str, Any]]) -> str:
    """One metric over the steps as an SVG figure; the entries of a list are a line each, from blue to red."""
    width = max((len(line[name]) for line in lines if isinstance(line.get(name), list)), default=1)
    series = []
    for i in range(width):
        values = [(line['step'], _entry(line.get(name), i)) for line in lines]
        series.append([(x, y) for x, y in values if y is not None and math.isfinite(y)])
    points = [point for line in series for point in line]
    if not points:
        return ''
    (x0, x1), (y0, y1) = (_ends([p[axis] for p in points]) for axis in (0, 1))

    def place(x, y):
        across, down = (x - x0) / (x1 - x0), 1 - (y - y0) / (y1 - y0)
        return f'{LEFT + across * (WIDTH - LEFT):.1f},{down * (HEIGHT - BOTTOM):.1f}'

    drawn = ''.join(
        f'<polyline fill="none" stroke="hsl({220 + 140 * i / max(width - 1, 1):.0f} 65% 48%)" stroke-width="1.5" '
        f'points="{" ".join(place(*point) for point in line)}"/>'
        for i, line in enumerate(series)
    )
    floor = HEIGHT - BOTTOM
    return (
        f'<figure><figcaption>{html.escape(name)}</figcaption>'
        f'<svg width="{WIDTH + 10}" height="{HEIGHT}" role="img" aria-label="{html.escape(name)}">'
        f'<path d="M{LEFT} 0V{floor}H{WIDTH}" fill="none" stroke="#bbb"/>{drawn}'
        f'<text x="{LEFT - 4}" y="10" text-anchor="end">{y1:.3g}</text>'
        f'<text x="{LEFT - 4}" y="{floor}" text-anchor="end">{y0:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{x0:.0f}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 8}" text-anchor="end">{x1:.0f}</text></svg></figure>'
    )


def _entry(value: Any, i: int) -> float | None:
    if isinstance(value, list):
        return value[i] if i < len(value) else None
    return value if i == 0 else None


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _strips(folder: pathlib.Path) -> list[str]:
    """A strip for each kind of image, from the first to the last."""
    kinds: dict[str, list[pathlib.Path]] = {}
    for path in sorted(folder.glob('*.png')):
        kinds.setdefault(re.sub(r'^\d+_?', '', path.stem), []).append(path)
    strips = []
    for kind, paths in kinds.items():
        chosen = [paths[round(i * (len(paths) - 1) / (SHOWN - 1))] for i in range(SHOWN)]
        figures = (
            f'<figure><figcaption>step {int(path.stem.split("_")[0])}</figcaption>'
            f'<img alt="{html.escape(path.stem)}" src="data:image/png;base64,'
            f'{base64.b64encode(path.read_bytes()).decode()}"></figure>'
            for path in dict.fromkeys(chosen)
        )
        strips.append(f'<h3>{html.escape(kind)}</h3>{"".join(figures)}')
    return strips
