"""KID: the squared maximum mean discrepancy of features under a polynomial kernel, over random subsets.

    k(x, y) = (x . y / D + 1)^3
    MMD^2 = mean over i /= j of k(x_i, x_j) + the same of y - 2 mean of k(x_i, y_j), which is unbiased

Ref: Binkowski et al. 2018, arXiv:1801.01401; the defaults are torch-fidelity's.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from ldm_jax import build
from ldm_jax.evaluation.checks import check_count
from ldm_jax.evaluation.row_store import RowStore


@dataclasses.dataclass(frozen=True)
class Metric:
    """{'kid': mean over subsets, 'kid_std': their deviation}; 0 in expectation for sets of one distribution.

    Attributes:
        protocol: whose features. Under 'clean' a subset is at most as large as the smaller set; under the others a
            smaller set is refused.
        subsets, subset_size: how many, and of how many images, drawn without replacement from each set.
        degree, coef0: of the kernel.
        seed: of NumPy's RandomState, which draws the subsets of rows in the order of the images' numbers.
    """

    protocol: str = 'torch_fidelity'
    subsets: int = 100
    subset_size: int = 1000
    degree: int = 3
    coef0: float = 1.0
    seed: int = 2020
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
        x, y = np.asarray(state.rows, np.float64), np.asarray(reference.rows, np.float64)
        size = self.subset_size
        if self.protocol == 'clean':
            size = min(size, len(x), len(y))
        check_count(min(len(x), len(y)), max(size, 2), f'KID with subset_size={self.subset_size}')
        random = np.random.RandomState(self.seed)
        found = []
        for _ in range(self.subsets):
            x_part, y_part = [rows[random.choice(len(rows), size, replace=False)] for rows in (x, y)]
            found.append(mmd(x_part, y_part, self.degree, self.coef0))
        return {'kid': float(np.mean(found)), 'kid_std': float(np.std(found))}


def mmd(x: np.ndarray, y: np.ndarray, degree: int = 3, coef0: float = 1.0) -> float:
    """The unbiased MMD^2 of rows x [m, D] and y [m, D] under the polynomial kernel."""
    m, width = x.shape

    def kernel(a, b):
        return (a @ b.T / width + coef0) ** degree

    xx, yy = kernel(x, x), kernel(y, y)
    within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
    return float(within / (m * (m - 1)) - 2 * kernel(x, y).mean())
