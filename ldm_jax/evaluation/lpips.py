"""LPIPS: the learned perceptual distance of pairs of images (models/lpips.py)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ldm_jax.evaluation.row_store import RowStore
from ldm_jax.images import to_float


@dataclasses.dataclass(frozen=True)
class Metric:
    """{'lpips': mean over images}; smaller is better, 0 for equal ones. Scores are published with the trunk 'alex'."""

    against: ClassVar[str] = 'pair'
    networks: ClassVar[tuple[str, ...]] = ('perceptual',)

    def rows(self, batch):
        return batch.networks.run('perceptual', to_float(batch.images), to_float(batch.references))[:, None]

    def init(self):
        return RowStore()

    def update(self, state, rows, numbers):
        return state.add(rows, numbers)

    def merge(self, a, b):
        return a | b

    def result(self, state, reference=None):
        return {'lpips': float(state.rows.mean())}
