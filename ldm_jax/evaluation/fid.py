"""FID: the Frechet distance of Inception's features (frechet.py), under a named protocol.

It is biased: fewer images give a larger number, so that only numbers of one count compare, and `infinity` extrapolates.
Ref: Heusel et al. 2017, arXiv:1706.08500; the bias: Chong & Forsyth 2020, arXiv:1911.07023.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from ldm_jax import build
from ldm_jax.evaluation import frechet
from ldm_jax.evaluation.checks import check_count
from ldm_jax.evaluation.moments import Moments

FEW = 5000  # images below which FID says little
POINTS = 15  # of the extrapolation
LEAST = 0.1  # share of the images that its smallest point has


@dataclasses.dataclass(frozen=True)
class Metric:
    """{'fid': d^2}; smaller is better.

    protocol: of ldm_jax/evaluation/protocols, one whose network is Inception; FD of other features is `fd`.

    Raises ValueError for an unknown protocol, or one of another network.
    """

    protocol: str = 'torch_fidelity'
    against: ClassVar[str] = 'set'
    networks: ClassVar[tuple[str, ...]] = ('inception',)

    def __post_init__(self):
        made = build.component('evaluation.protocols', self.protocol)
        if made.network != 'inception':
            raise ValueError(
                f'FID is measured with Inception, and the protocol {self.protocol!r} has the network '
                f'{made.network!r}: that is fd:{self.protocol}.'
            )

    def rows(self, batch):
        return batch.features(self.protocol)

    def init(self):
        return Moments()

    def update(self, state, rows, numbers):
        return state.add(rows, numbers)

    def merge(self, a, b):
        return a | b

    def result(self, state, reference=None):
        root = frechet.ROOTS[build.component('evaluation.protocols', self.protocol).root]
        moments = state.mean, state.covariance, reference.mean, reference.covariance
        return {'fid': frechet.distance(*moments, root=root)}


def infinity(rows: np.ndarray, reference: Moments, seed: int = 0, points: int = POINTS) -> float:
    """FID of infinitely many images: the intercept of a line through FIDs of random subsets over 1 / their size.

    Args:
        rows: features [n, D] of the generated images.
        reference: of the references, which stay as they are.
        seed: of the subsets.
        points: how many, of n / 10 to n images.

    Raises ValueError below 100 images.
    """
    check_count(len(rows), 100, 'The infinite-sample estimate of FID')
    random = np.random.default_rng(seed)
    sizes = np.linspace(LEAST * len(rows), len(rows), points).astype(int)
    found = []
    for size in sizes:
        part = Moments().add(rows[random.permutation(len(rows))[:size]])
        moments = part.mean, part.covariance, reference.mean, reference.covariance
        found.append(frechet.distance(*moments))
    _, intercept = np.polyfit(1 / sizes, found, 1)
    return float(intercept)
