"""GLoRA: dW = alpha / r (W a1 a2 + b1 b2), where W a1 a2 acts on the input axis.

Ref: Chavan et al. 2023, arXiv:2306.07967.
"""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters import scale as scales
from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

NEEDS = (('a1', 'a2', 'b1', 'b2'),)
TAKES = ('alpha', 'scale')


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: a1 [i, r], a2 [r, i], b1 [o, r], b2 [r, i, *k]; old files have each pair swapped."""
    a1, a2, b1, b2 = (tensors[name] for name in ('a1', 'a2', 'b1', 'b2'))
    if b1.shape[0] != weight.shape[0] or b1.shape[1] != b2.shape[0]:
        a1, a2, b1, b2 = a2, a1, b2, b1
    rank = b2.shape[0]
    inner = a1.reshape(a1.shape[:2]) @ a2.reshape(a2.shape[:2])
    own = b1.reshape(b1.shape[0], -1) @ b2.reshape(rank, -1)
    product = jnp.einsum('oi...,ij->oj...', weight, inner) + own.reshape(weight.shape)
    return scales.scale(tensors, rank) * product
