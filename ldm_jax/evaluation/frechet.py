"""The Frechet distance of two Gaussians, and the trace of a square root as each protocol takes it.

    d^2 = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

Ref: Dowson & Landau 1982; as a distance of features, Heusel et al. 2017, arXiv:1706.08500.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

OFFSET = 1e-6  # what pytorch-fid and clean-fid add to the diagonals where the root is not finite
IMAGINARY = 1e-3  # the largest imaginary part that they take for rounding


def symmetric(s1: np.ndarray, s2: np.ndarray) -> float:
    """tr (S1 S2)^(1/2) by the eigenvalues of R S2 R, R = S1^(1/2): real and stable for singular covariances too."""
    values, vectors = np.linalg.eigh(s1)
    root = vectors * np.sqrt(np.maximum(values, 0))  # root @ root.T = S1
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ s2 @ root), 0)).sum())


def eigenvalues(s1: np.ndarray, s2: np.ndarray) -> float:
    """tr (S1 S2)^(1/2) as torch-fidelity 0.4: the real parts of the roots of the product's eigenvalues."""
    return float(np.sqrt(np.linalg.eigvals(s1 @ s2).astype(np.complex128)).real.sum())


def sqrtm(s1: np.ndarray, s2: np.ndarray) -> float:
    """tr (S1 S2)^(1/2) as pytorch-fid, clean-fid and the ADM evaluator: scipy's sqrtm, then the diagonal's real part.

    Raises ValueError when the root has an imaginary part that is not rounding.
    """
    root = scipy.linalg.sqrtm(s1 @ s2)
    if not np.isfinite(root).all():
        offset = np.eye(len(s1)) * OFFSET
        root = scipy.linalg.sqrtm((s1 + offset) @ (s2 + offset))
    if np.iscomplexobj(root) and not np.allclose(np.diagonal(root).imag, 0, atol=IMAGINARY):
        raise ValueError(
            f'The square root of the covariances has an imaginary part of {np.abs(root.imag).max():.3g}: are there '
            'fewer images than features?'
        )
    return float(np.trace(root.real))


ROOTS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    'symmetric': symmetric,
    'eigenvalues': eigenvalues,
    'sqrtm': sqrtm,
}


def distance(
    mean1: np.ndarray,
    covariance1: np.ndarray,
    mean2: np.ndarray,
    covariance2: np.ndarray,
    root: Callable[[np.ndarray, np.ndarray], float] = symmetric,
) -> float:
    """d^2 of N(mean1 [D], covariance1 [D, D]) and N(mean2, covariance2). Raises ValueError for two widths."""
    if mean1.shape != mean2.shape:
        raise ValueError(f'Features {len(mean1)} wide and {len(mean2)} wide are not of one network.')
    difference = mean1 - mean2
    traces = np.trace(covariance1) + np.trace(covariance2) - 2 * root(covariance1, covariance2)
    return float(difference @ difference + traces)
