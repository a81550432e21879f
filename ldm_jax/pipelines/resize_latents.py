"""Latents at another size, by the weights of torch's `interpolate` (align_corners False), which web UIs use.

jax.image has neither torch's bicubic weights without antialiasing nor its 'nearest'.
"""

from __future__ import annotations

import numpy as np

from ldm_jax.build import unknown

METHODS = (
    'nearest',
    'nearest_exact',
    'bilinear',
    'bilinear_antialiased',
    'bicubic',
    'bicubic_antialiased',
)


def interpolated(x: np.ndarray, size: tuple[int, int], method: str = 'bilinear') -> np.ndarray:
    """x [..., h, w, C] at size (H, W): float32 [..., H, W, C].

    Raises ValueError for another method.
    """
    if method not in METHODS:
        raise unknown('interpolation', method, list(METHODS))
    rows, columns = (_weights(old, new, method) for old, new in zip(np.shape(x)[-3:-1], size, strict=True))
    return np.einsum('Hh,...hwc,Ww->...HWc', rows, np.asarray(x), columns, optimize=True).astype(np.float32)


def _weights(old: int, new: int, method: str) -> np.ndarray:
    """[new, old] weights of the old samples along one axis."""
    name, _, antialiased = method.partition('_')
    to = np.arange(new)[:, None]
    if name == 'nearest':
        exact = 0.5 if antialiased else 0.0
        return (np.floor((to + exact) * old / new) == np.arange(old)).astype(np.float64)
    kernel, reach = (_triangle, 1) if name == 'bilinear' else (_cubic, 2)
    at = (to + 0.5) * old / new - 0.5
    if antialiased:  # a kernel as wide as a new sample, cut off at the edges
        wide = max(old / new, 1.0)
        sharpness = () if name == 'bilinear' else (-0.5,)
        weights = kernel((np.arange(old) - at) / wide, *sharpness)
        return weights / weights.sum(1, keepdims=True)
    # Beyond the edges, the edge is repeated.
    weights = np.zeros((new, old))
    taps = np.floor(at) + np.arange(1 - reach, reach + 1)
    inside = np.clip(taps, 0, old - 1).astype(int)
    np.add.at(weights, (to, inside), kernel(taps - at))
    return weights


def _triangle(d: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(d), 0)


def _cubic(d: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Ref: Keys 1981, "Cubic convolution interpolation", eq. 15 with a free slope a at distance 1."""
    d = np.abs(d)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
