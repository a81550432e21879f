"""BOFT: rotations of ever wider pairs of rows, as in a fast Fourier transform, one after the other.

Before factor i the rows (c, 2, 2^i b / 2) are put in the order (c, 2^i b / 2, 2), turned in blocks of b, and put back.
Ref: Liu et al. 2023, arXiv:2311.06243, section 4, as LyCORIS stores it.
"""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters.kinds import Tensors
from ldm_jax.adapters.oft import rescaled, rotation
from ldm_jax.types import Array

NEEDS = (('oft_blocks',),)
TAKES = ('alpha', 'rescale')


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: oft_blocks [m, n, b, b]; alpha []; rescale [o, 1, ...]."""
    factors = rotation(tensors, weight.shape[0])  # [m, n, b, b]
    size, rows = factors.shape[-1], weight.reshape(weight.shape[0], -1)
    for i, blocks in enumerate(factors):
        reach = 2**i * size // 2
        apart = rows.reshape(-1, 2, reach, rows.shape[-1]).swapaxes(1, 2)
        turned = jnp.einsum('bij,bjx->bix', blocks, apart.reshape(-1, size, rows.shape[-1]))
        rows = turned.reshape(apart.shape).swapaxes(1, 2).reshape(rows.shape)
    return rescaled(tensors, rows.reshape(weight.shape)) - weight
