"""OFT as PEFT has it: blocks of inputs are rotated, W' = W R^T.

Ref: Qiu et al. 2025, arXiv:2506.19847 (OFTv2), whose Cayley transform may be a truncated Neumann series.
"""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters.kinds import Tensors
from ldm_jax.adapters.oft import cayley
from ldm_jax.types import Array

NEEDS = (('oft_R',), ('oft_R', 'neumann'))
TAKES = ()


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: oft_R [n, b (b - 1) / 2], what is above the diagonal of each Q; one block serves all inputs.

    neumann: [terms]; a series of so many terms takes the place of the inverse, where the file's config says so.
    """
    triangles = tensors['oft_R']
    blocks, size = triangles.shape[0], round((1 + (1 + 8 * triangles.shape[1]) ** 0.5) / 2)
    rows, columns = jnp.triu_indices(size, 1)
    skew = jnp.zeros((blocks, size, size), weight.dtype).at[:, rows, columns].set(triangles)
    skew = skew - skew.swapaxes(-1, -2)
    # PEFT's own R is (I + Q)^-1 (I - Q) by the inverse, and (I + Q)(I - Q)^-1 by the series.
    turned = cayley(-skew) if 'neumann' not in tensors else _series(skew, tensors['neumann'].shape[0])
    flat = weight.reshape(weight.shape[0], -1)
    count = flat.shape[1] // size
    turned = jnp.broadcast_to(turned, (count, size, size)) if blocks == 1 else turned
    rotated = jnp.einsum('oknx,kmn->okmx', flat.reshape(len(flat), count, size, 1), turned)
    return rotated.reshape(weight.shape) - weight


def _series(skew: Array, terms: int) -> Array:
    """I + 2 (Q + Q^2 + ...), the last power once."""
    found, power = jnp.eye(skew.shape[-1], dtype=skew.dtype), skew
    for i in range(1, terms):
        found = found + (2 if i < terms - 1 else 1) * power
        power = power @ skew
    return found
