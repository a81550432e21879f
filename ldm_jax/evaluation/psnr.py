"""PSNR: peak signal-to-noise ratio of pairs of images, 10 log10(peak^2 / mean squared error)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from ldm_jax.evaluation.checks import check_pair
from ldm_jax.evaluation.row_store import RowStore
from ldm_jax.images import to_float

RANGE = 2.0  # of pixels in [-1, 1]
MOST = 100.0  # dB, of equal images, whose ratio is infinite


@dataclasses.dataclass(frozen=True)
class Metric:
    """{'psnr': mean over images in dB}; larger is better, 100 at most."""

    against: ClassVar[str] = 'pair'
    networks: ClassVar[tuple[str, ...]] = ()

    def init(self):
        return RowStore()

    def update(self, state, rows, numbers):
        return state.add(rows, numbers)

    def merge(self, a, b):
        return a | b

    def result(self, state, reference=None):
        return {'psnr': float(state.rows.mean())}

    def rows(self, batch):
        return self.scores(to_float(batch.images), to_float(batch.references))

    def scores(self, x, y):
        """Rows [B, 1] of images x and their references y [B, H, W, C] in [-1, 1], in dB."""
        x, y = check_pair(x, y)
        error = ((x - y) ** 2).mean((1, 2, 3))
        least = RANGE**2 * 10 ** (-MOST / 10)
        return 10 * np.log10(RANGE**2 / np.maximum(error, least))[:, None]
