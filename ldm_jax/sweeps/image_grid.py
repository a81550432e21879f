"""The image grid of a sweep: one setting across, one down, and a sheet for each combination of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ldm_jax.images import contact_sheet, enlarged
from ldm_jax.sheet import labelled_sheet
from ldm_jax.sweeps.definition import Sweep, short
from ldm_jax.sweeps.results import Results
from ldm_jax.sweeps.statistics import Row
from ldm_jax.sweeps.tables import Report, settings

SHEETS = 6  # that are made at most
LEAST = 64  # pixels that an image has at least, enlarged by whole factors


def sheets(
    sweep: Sweep, rows: Sequence[Row], results: Results, report: Report
) -> Iterator[tuple[str, np.ndarray]]:
    """(settings of a sheet, sheet uint8 [H, W, 3]), of the first seed's images; none for cells without images."""
    others = [name for name in settings(sweep) if name not in (report.x, report.y)]
    found: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    for row in rows:
        z = ', '.join(f'{name}={short(row.settings.get(name))}' for name in others)
        if z not in found and len(found) == SHEETS:
            continue
        images = results.read(row.cells[0].key).arrays.get('images')
        if images is not None and len(images):
            place = short(row.settings.get(report.x)), short(row.settings.get(report.y))
            found.setdefault(z, {})[place] = _block(images)
    for z, blocks in found.items():
        columns, lines = ([*dict.fromkeys(place[i] for place in blocks)] for i in (0, 1))
        blank = np.full_like(next(iter(blocks.values())), 255)
        made = [np.stack([blocks.get((x, y), blank) for x in columns]) for y in lines]
        titles = [f'{report.y}={y}' if report.y else '' for y in lines]
        yield z, labelled_sheet(made, titles, [f'{report.x}={x}' if report.x else '' for x in columns])


def _block(images: np.ndarray) -> np.ndarray:
    """A cell's images [n, H, W, 3] in a square."""
    side = int(np.ceil(np.sqrt(len(images))))
    padded = np.full((side * side, *images.shape[1:]), 255, np.uint8)
    padded[: len(images)] = images
    sheet = contact_sheet(padded.reshape(side, side, *images.shape[1:]))
    return enlarged(sheet, max(1, -(-LEAST // images.shape[1])))
