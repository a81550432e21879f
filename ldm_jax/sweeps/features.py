"""Features of sampled latents for metrics of sets, by name: (pipeline, latents [B, h, w, Z]) -> rows [B, D]."""

from __future__ import annotations

import numpy as np

from ldm_jax.inference.pipeline import Pipeline


def latents(pipeline: Pipeline, latents: np.ndarray, *, width: int = 32, seed: int = 0) -> np.ndarray:
    """The latents themselves, in `width` random orthonormal directions so that few images suffice for a covariance."""
    flat = np.asarray(latents, np.float64).reshape(len(latents), -1)
    if width >= flat.shape[1]:
        return flat
    directions = np.linalg.qr(np.random.default_rng(seed).standard_normal((flat.shape[1], width)))[0]
    return flat @ directions


FEATURES = {'latents': latents}
