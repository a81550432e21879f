"""OFT: blocks of output rows are rotated, W' = rescale R^T W, R = (I + Q)(I - Q)^-1, Q antisymmetric (Cayley).

With a constraint alpha > 0 the norm of all Q of a layer is at most alpha times its outputs.
Ref: Qiu et al. 2023, arXiv:2306.07280, equation 3, as LyCORIS and kohya's sd-scripts store it.
"""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

NEEDS = (('oft_blocks',),)
TAKES = ('alpha', 'rescale')


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: oft_blocks [n, b, b], of whose antisymmetric part Q is made; alpha []; rescale [o, 1, ...]."""
    rotations = rotation(tensors, weight.shape[0])
    rows = weight.reshape(*rotations.shape[:2], *weight.shape[1:])
    turned = jnp.einsum('knm,kn...->km...', rotations, rows).reshape(weight.shape)
    return rescaled(tensors, turned) - weight


def rotation(tensors: Tensors, outputs: int) -> Array:
    """R of each block [..., b, b]."""
    blocks = tensors['oft_blocks']
    skew = blocks - blocks.swapaxes(-1, -2)
    if 'alpha' in tensors:
        most, norm = tensors['alpha'].reshape(()) * outputs, jnp.sqrt(jnp.sum(skew**2)) + 1e-8
        skew = skew * jnp.where((most > 0) & (norm > most), most / norm, 1)
    return cayley(skew)


def cayley(skew: Array) -> Array:
    """(I + Q)(I - Q)^-1 of antisymmetric Q [..., b, b]: a rotation. The two factors commute."""
    one = jnp.eye(skew.shape[-1], dtype=skew.dtype)
    return jnp.linalg.solve(one - skew, one + skew)


def rescaled(tensors: Tensors, weight: Array) -> Array:
    """The weight with its outputs scaled, where tensors say so."""
    if 'rescale' not in tensors:
        return weight
    return weight * tensors['rescale'].reshape(-1, *(1,) * (weight.ndim - 1))
