"""Noise that belongs to an image, not to the batch that it is made in."""

from __future__ import annotations

import jax

from ldm_jax.types import Array


def image_keys(seeds: Array) -> Array:
    """One PRNG key for each integer seed: [B] -> keys [B]."""
    return jax.vmap(jax.random.key)(seeds)


def normal(keys: Array, like: Array) -> Array:
    """Standard normal noise of the shape and dtype of `like` [B, ...], the i-th from keys[i] alone."""
    return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:], like.dtype))(keys)


def split(keys: Array, num: int) -> tuple[Array, ...]:
    """`num` independent keys for each image: [B] -> num times [B]."""
    return tuple(jax.vmap(lambda key: jax.random.split(key, num))(keys).T)
