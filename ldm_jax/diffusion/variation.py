"""Starting noise turned part of the way towards another seed's, as A1111's web UI makes variations of an image."""

from __future__ import annotations

import numpy as np

PARALLEL = 0.9995  # the mean cosine above which the web UI mixes along a straight line


def varied(noise: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    """Noise [B, h, w, C] on the arc from `noise` (strength 0) to `other` (strength 1).

    The arc is spherical, and of each column of each channel by itself, since the web UI takes norms over the axis h
    of its (C, h, w). Where both are nearly parallel its straight line runs the other way, which is kept.

    Raises ValueError for a strength outside [0, 1], or noises of two shapes.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f'variation_strength must be from 0 to 1; got {strength}.')
    if noise.shape != other.shape:
        raise ValueError(
            f'Noises of one shape have an arc between them; got {noise.shape} and {other.shape}.'
        )
    return np.stack([_arc(*pair, strength) for pair in zip(noise, other, strict=True)]).astype(noise.dtype)


def _arc(low: np.ndarray, high: np.ndarray, share: float) -> np.ndarray:
    norms = (np.linalg.norm(a, axis=0, keepdims=True) for a in (low, high))
    units = [a / norm for a, norm in zip((low, high), norms, strict=True)]
    cosine = (units[0] * units[1]).sum(0, keepdims=True)
    if cosine.mean() > PARALLEL:
        return low * share + high * (1 - share)
    angle = np.arccos(cosine)
    return (np.sin((1 - share) * angle) * low + np.sin(share * angle) * high) / np.sin(angle)
