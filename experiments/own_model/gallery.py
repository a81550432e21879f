"""Whether images of held-out prompts show what was asked for, by their nearest real images.

Rows are features of any network, [N, D]; a key names what an image shows, such as '1f34e noto'. Distances are
Euclidean.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

BLOCK = 256  # queries at a time


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The real images.

    rows: [M, D].
    keys: what each shows.
    styles: of each.
    trained: [M] bool, whether it was trained on.

    Raises ValueError for lengths that differ.
    """

    rows: np.ndarray
    keys: Sequence[str]
    styles: Sequence[str]
    trained: np.ndarray

    def __post_init__(self):
        counts = {name: len(getattr(self, name)) for name in ('rows', 'keys', 'styles', 'trained')}
        if len(set(counts.values())) != 1:
            raise ValueError(f'A gallery has one of each for an image; got {counts}.')


def nearest(queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(distances [n, k], indices [n, k]) of the k rows nearest to each query, ascending; ties by index."""
    squares = np.square(rows.astype(np.float64)).sum(1)
    distances, indices = [], []
    for start in range(0, len(queries), BLOCK):
        part = queries[start : start + BLOCK].astype(np.float64)
        squared = np.square(part).sum(1)[:, None] + squares - 2 * part @ rows.T.astype(np.float64)
        order = np.argsort(squared, axis=1, kind='stable')[:, :k]
        indices.append(order)
        distances.append(np.sqrt(np.maximum(np.take_along_axis(squared, order, 1), 0)))
    return np.concatenate(distances), np.concatenate(indices)


def found(queries: np.ndarray, keys: Sequence[str], gallery: Gallery, k: int = 5) -> np.ndarray:
    """[n] bool: an image of the query's key is among its k nearest in the gallery."""
    have = np.asarray(gallery.keys)
    return (have[nearest(queries, gallery.rows, k)[1]] == np.asarray(keys)[:, None]).any(1)


def chance(keys: Sequence[str], gallery: Gallery, k: int = 5) -> float:
    """The share that k images of the gallery, drawn without looking, would find."""
    names, counts = np.unique(np.asarray(gallery.keys), return_counts=True)
    of_key, total = dict(zip(names.tolist(), counts.tolist(), strict=True)), len(gallery.keys)
    missed = [math.comb(total - of_key.get(key, 0), k) / math.comb(total, k) for key in keys]
    return 1 - float(np.mean(missed))


def copies(
    queries: np.ndarray, styles: Sequence[str], reconstructions: np.ndarray, gallery: Gallery
) -> np.ndarray:
    """[n] bool: the nearest real image is one of the training set in another style than was asked for, and nearer than
    the autoencoder's reconstruction [n, D] of the true image.
    """
    distances, indices = (found[:, 0] for found in nearest(queries, gallery.rows, 1))
    another = np.asarray(gallery.styles)[indices] != np.asarray(styles)
    to_own = np.linalg.norm(queries.astype(np.float64) - reconstructions, axis=1)
    return np.asarray(gallery.trained)[indices] & another & (distances < to_own)


def wilson(hits: np.ndarray, z: float = 1.96) -> tuple[float, float, float]:
    """(share, lower, upper) of a sample of booleans: Wilson's 95 % interval.

    Ref: Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    n, share = len(hits), float(np.mean(hits))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return share, middle - half, middle + half
