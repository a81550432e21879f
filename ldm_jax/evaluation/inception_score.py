"""The Inception score: exp of the mean divergence of an image's class distribution from that of all images.

    exp(E_x KL(p(y | x) || p(y)))

Ref: Salimans et al. 2016, arXiv:1606.03498.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

import numpy as np
from scipy import special

from ldm_jax.build import unknown
from ldm_jax.evaluation.checks import check_count
from ldm_jax.evaluation.row_store import RowStore

SPLIT = 5000  # images of a split of OpenAI's evaluator


@dataclasses.dataclass(frozen=True)
class Metric:
    """{'inception_score': mean over splits, 'inception_score_std': their deviation}; larger is better.

    Attributes:
        protocol: 'torch_fidelity' shuffles by RandomState(seed) and takes `splits` splits; 'adm' takes 5,000 images a
            split in the order of their numbers.
        splits, seed: of torch_fidelity.
    """

    protocol: str = 'torch_fidelity'
    splits: int = 10
    seed: int = 2020
    against: ClassVar[str] = 'none'
    networks: ClassVar[tuple[str, ...]] = ('inception',)

    def __post_init__(self):
        if self.protocol not in ('torch_fidelity', 'adm'):
            raise unknown('protocol of the Inception score', self.protocol, ['adm', 'torch_fidelity'])

    def rows(self, batch):
        if not batch.networks.modules['inception'].head:
            raise ValueError(
                "This Inception has no classifier's head, which the Inception score needs: convert the file of "
                'pytorch-fid (pt_inception-2015-12-05-6726825d.pth), which has it.'
            )
        return batch.features(self.protocol, 'logits')

    def init(self):
        return RowStore()

    def update(self, state, rows, numbers):
        return state.add(rows, numbers)

    def merge(self, a, b):
        return a | b

    def result(self, state, reference=None):
        logits = np.asarray(state.rows, np.float64)
        count = len(logits)
        if self.protocol == 'adm':
            edges = [*range(0, count, SPLIT), count]
        else:
            check_count(count, self.splits, f'The Inception score with {self.splits} splits')
            random = np.random.RandomState(self.seed)
            logits = logits[random.permutation(count)]
            edges = [i * count // self.splits for i in range(self.splits + 1)]
        log_p = special.log_softmax(logits, axis=1)
        scores = [_score(log_p[a:b]) for a, b in itertools.pairwise(edges)]
        return {'inception_score': float(np.mean(scores)), 'inception_score_std': float(np.std(scores))}


def _score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    return float(np.exp((p * (log_p - np.log(p.mean(0)))).sum(1).mean()))
