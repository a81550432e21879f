"""Noise that belongs to an image, not to the batch that it is made in. Keys are Philox's (prng.py)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from ldm_jax.diffusion import prng
from ldm_jax.types import Array


def image_keys(seeds: Array) -> Array:
    """One PRNG key for each integer seed: [B] -> keys [B]."""
    return jax.vmap(prng.key)(seeds)


def streams(seeds: Sequence[int]) -> tuple[Array, Array]:
    """Two keys [B] for each image, of the low 32 bits of its seed: for what it starts from, and for its sampler."""
    words = np.asarray([int(seed) & 0xFFFFFFFF for seed in seeds], np.uint32)
    return _streams(words)


@jax.jit
def _streams(words):
    return split(image_keys(words), 2)


def normal(keys: Array, like: Array) -> Array:
    """Standard normal noise of the shape and dtype of `like` [B, ...], the i-th from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:], like.dtype))(keys)


def split(keys: Array, num: int) -> tuple[Array, ...]:
    """`num` independent keys for each image: [B] -> num times [B]."""
    return tuple(jax.vmap(lambda key: jax.random.split(key, num))(keys).T)
