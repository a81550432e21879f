"""The scale of low-rank adapters, and DoRA's magnitudes, which several kinds share."""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

TAKES = ('alpha', 'scale', 'dora_scale', 'magnitude')


def scale(tensors: Tensors, rank: int) -> Array | float:
    """alpha / rank, or 1 without an alpha; a tensor 'scale' goes before both, as in A1111."""
    if 'scale' in tensors:
        return tensors['scale'].reshape(())
    return tensors['alpha'].reshape(()) / rank if 'alpha' in tensors else 1.0


def decomposed(tensors: Tensors, weight: Array, difference: Array) -> Array:
    """The difference itself, or with magnitudes that of DoRA: W' = m V / norm(V), V = W + difference.

    dora_scale: LyCORIS': [1, i, ...] for a norm of each input, [o, 1, ...] for one of each output.
    magnitude: PEFT's: [o] or [1, o, 1, 1], always of each output.
    Ref: Liu et al. 2024, arXiv:2402.09353, eq. 5.
    """
    magnitude = tensors.get('magnitude', tensors.get('dora_scale'))
    if magnitude is None:
        return difference
    moved = weight + difference
    by_input = 'magnitude' not in tensors and magnitude.shape[0] == 1 and weight.shape[0] > 1
    axes = tuple(axis for axis in range(weight.ndim) if axis != (1 if by_input else 0))
    shape = [1] * weight.ndim
    shape[1 if by_input else 0] = weight.shape[1 if by_input else 0]
    norm = jnp.sqrt(jnp.sum(moved**2, axis=axes, keepdims=True))
    return moved * (magnitude.reshape(shape) / norm) - weight
