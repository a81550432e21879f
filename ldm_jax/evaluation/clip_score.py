"""CLIP score: the cosine between an image's and its text's embedding, and how often the image is found by its text.

Which CLIP it is decides the number: quote it. Ref: Hessel et al. 2021, arXiv:2104.08718; recall: Radford et al. 2021,
arXiv:2103.00020.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from ldm_jax.evaluation.checks import check_count
from ldm_jax.evaluation.row_store import RowStore


@dataclasses.dataclass(frozen=True)
class Metric:
    """{'clip_score': mean cosine times the factor, 'recall_at_K': share of texts whose image is among its K nearest}.

    Attributes:
        factor: 1 as MLPerf has it; others write 100.
        recall: the K, of sets larger than K. Texts that are equal share their images: any of them counts.
    """

    factor: float = 1.0
    recall: tuple[int, ...] = (1, 5)
    against: ClassVar[str] = 'text'
    networks: ClassVar[tuple[str, ...]] = ('image_encoder', 'text_encoder')

    def rows(self, batch):
        """[B, 2 D]: embeddings of image and text, of norm 1."""
        image = batch.features('clip')
        text = batch.networks.run('text_encoder', batch.networks.tokenizer(list(batch.texts))).projected
        unit = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in (image, np.asarray(text))]
        return np.concatenate(unit, 1)

    def init(self):
        return RowStore()

    def update(self, state, rows, numbers):
        return state.add(rows, numbers)

    def merge(self, a, b):
        return a | b

    def result(self, state, reference=None):
        check_count(state.count, 1, 'The CLIP score')
        image, text = np.split(np.asarray(state.rows, np.float64), 2, axis=1)
        found = {'clip_score': float(self.factor * (image * text).sum(1).mean())}
        ranks = _ranks(image, text)
        return found | {f'recall_at_{k}': float((ranks < k).mean()) for k in self.recall if k < len(image)}


def _ranks(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """[n], how many images of other texts are nearer to a text than the nearest one of its own."""
    _, which = np.unique(text.round(6), axis=0, return_inverse=True)
    ranks = np.empty(len(text), np.int64)
    for start in range(0, len(text), 1024):
        rows = slice(start, start + 1024)
        cosine = text[rows] @ image.T
        own = which[rows, None] == which
        best = np.where(own, cosine, -np.inf).max(1, keepdims=True)
        ranks[rows] = ((cosine > best) & ~own).sum(1)
    return ranks
