"""Norms: scale and bias of a normalization change by so much (LyCORIS' train_norm)."""

from __future__ import annotations

from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

NEEDS = (('w_norm',),)
TAKES = ('b_norm',)
BIAS = 'b_norm'


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: w_norm [c], and b_norm [c] for the bias."""
    return tensors['w_norm'].reshape(weight.shape)
