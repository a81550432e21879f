"""The noising process x = alpha x0 + sigma eps, and how per-image numbers meet images."""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.types import Array, NoiseLevel


def per_example(a: Array, x: Array) -> Array:
    """a [B] or [] with trailing axes of size 1, so that it broadcasts against x [B, ...]."""
    a = jnp.asarray(a)
    return a.reshape(a.shape + (1,) * (x.ndim - a.ndim)) if a.ndim else a


def add_noise(x0: Array, eps: Array, level: NoiseLevel) -> Array:
    """Clean x0 [B, ...] and noise eps of the same shape -> x at the level (leaves [B] or [])."""
    return per_example(level.alpha, x0) * x0 + per_example(level.sigma, x0) * eps
