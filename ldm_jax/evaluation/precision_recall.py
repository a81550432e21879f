"""Precision and recall, density and coverage: how much of the generated and of the reference set the other one covers.

A row is covered by a set when it lies within the distance from a row of that set to its k-th neighbour there.
Ref: Kynkaanniemi et al. 2019, arXiv:1904.06991 (precision, recall); Naeem et al. 2020, arXiv:2002.09797 (density,
coverage).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from ldm_jax import build
from ldm_jax.evaluation import neighbours
from ldm_jax.evaluation.checks import check_count
from ldm_jax.evaluation.row_store import RowStore


@dataclasses.dataclass(frozen=True)
class Metric:
    """{'precision', 'recall', 'density', 'coverage'}; larger is better, density may exceed 1.

    Attributes:
        protocol: whose features.
        k: neighbours of precision and recall, 3 as published.
        density_k: neighbours of density and coverage, 5 as published.
    """

    protocol: str = 'torch_fidelity'
    k: int = 3
    density_k: int = 5
    against: ClassVar[str] = 'set'

    def __post_init__(self):
        build.component('evaluation.protocols', self.protocol)

    @property
    def networks(self):
        return (build.component('evaluation.protocols', self.protocol).network,)

    def rows(self, batch):
        return batch.features(self.protocol)

    def init(self):
        return RowStore()

    def update(self, state, rows, numbers):
        return state.add(rows, numbers)

    def merge(self, a, b):
        return a | b

    def result(self, state, reference=None):
        x, y = state.rows, reference.rows
        check_count(min(len(x), len(y)), max(self.k, self.density_k) + 1, 'Precision and recall')
        of_x, of_y = neighbours.radii(x, self.k), neighbours.radii(y, self.k)
        wide = neighbours.radii(y, self.density_k)
        precise, density = np.empty(len(x)), np.empty(len(x))
        recalled, covered = np.zeros(len(y), bool), np.zeros(len(y), bool)
        for rows, each in neighbours.distances(x, y):  # [b, m]
            precise[rows] = (each <= of_y).any(1)
            density[rows] = (each < wide).sum(1) / self.density_k
            recalled |= (each <= of_x[rows, None]).any(0)
            covered |= (each < wide).any(0)
        values = dict(precision=precise, recall=recalled, density=density, coverage=covered)
        return {name: float(each.mean()) for name, each in values.items()}
