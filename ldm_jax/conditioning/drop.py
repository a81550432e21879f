"""Zeros where a conditioning is left out, of the kinds for which zeros mean nothing."""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Cond


def unless(drop: Array, array: Array) -> Array:
    """An array [B, ...] with zeros where drop [B] is true."""
    return jnp.where(per_example(drop, array), 0.0, array)


def pair(drop_rate: float, **parts: Array) -> tuple[Cond, Cond]:
    """(unconditional, conditional) of parts of a Cond: zeros if training left them out, else twice the same."""
    cond = Cond(**parts)
    if drop_rate == 0:
        return cond, cond
    return Cond(**{part: jnp.zeros_like(array) for part, array in parts.items()}), cond
