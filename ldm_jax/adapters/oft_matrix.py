"""OFT as its first files store it: the rotations themselves, W' = R W in blocks of output rows."""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

NEEDS = (('oft_diag',),)
TAKES = ('alpha',)


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: oft_diag [n, b, b]."""
    blocks = tensors['oft_diag']
    rows = weight.reshape(*blocks.shape[:2], *weight.shape[1:])
    return jnp.einsum('kmn,kn...->km...', blocks, rows).reshape(weight.shape) - weight
