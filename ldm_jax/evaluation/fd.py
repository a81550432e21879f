"""FD: the Frechet distance of any network's features (frechet.py)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ldm_jax import build
from ldm_jax.evaluation import frechet
from ldm_jax.evaluation.moments import Moments


@dataclasses.dataclass(frozen=True)
class Metric:
    """FD of rows of features: {'fd': d^2}, smaller is better, 0 for equal means and covariances.

    Attributes:
        protocol: whose features, of ldm_jax/evaluation/protocols or a dotted name.
        root: how the trace of the square root is taken, of frechet.ROOTS; 'symmetric' is the stable one.
    """

    protocol: str = 'clip'
    root: str = 'symmetric'
    against: ClassVar[str] = 'set'

    def __post_init__(self):
        build.component('evaluation.protocols', self.protocol)
        if self.root not in frechet.ROOTS:
            raise build.unknown('square root', self.root, sorted(frechet.ROOTS))

    @property
    def networks(self):
        return (build.component('evaluation.protocols', self.protocol).network,)

    def rows(self, batch):
        return batch.features(self.protocol)

    def init(self):
        return Moments()

    def update(self, state, rows, numbers):
        return state.add(rows, numbers)

    def merge(self, a, b):
        return a | b

    def result(self, state, reference=None):
        root = frechet.ROOTS[self.root]
        args = state.mean, state.covariance, reference.mean, reference.covariance
        return {'fd': frechet.distance(*args, root=root)}
