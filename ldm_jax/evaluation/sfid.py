"""sFID: the Frechet distance of Inception's spatial features, the first 7 channels of mixed_6/conv at 17 x 17 places.

Ref: Nash et al. 2021, arXiv:2103.03841; as in OpenAI's evaluator.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ldm_jax.evaluation import frechet
from ldm_jax.evaluation.moments import Moments


@dataclasses.dataclass(frozen=True)
class Metric:
    """{'sfid': d^2} under the protocol adm; smaller is better."""

    protocol: ClassVar[str] = 'adm'
    against: ClassVar[str] = 'set'
    networks: ClassVar[tuple[str, ...]] = ('inception',)

    def rows(self, batch):
        return batch.features(self.protocol, 'spatial')

    def init(self):
        return Moments()

    def update(self, state, rows, numbers):
        return state.add(rows, numbers)

    def merge(self, a, b):
        return a | b

    def result(self, state, reference=None):
        moments = state.mean, state.covariance, reference.mean, reference.covariance
        return {'sfid': frechet.distance(*moments, root=frechet.sqrtm)}
