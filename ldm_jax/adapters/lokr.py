"""LoKr: a Kronecker product, dW = alpha / r  w1 (x) w2, either factor whole or of low rank.

With both factors whole there is no rank, and alpha means nothing.
Ref: Edalati et al. 2022, arXiv:2212.10650 (KronA); Yeh et al. 2023, arXiv:2309.14859.
"""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters import scale as scales
from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

FIRST = (('lokr_w1',), ('lokr_w1_a', 'lokr_w1_b'))
SECOND = (('lokr_w2',), ('lokr_w2_a', 'lokr_w2_b'))
NEEDS = tuple(first + second for first in FIRST for second in SECOND)
TAKES = ('lokr_t2', *scales.TAKES)


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: lokr_w1 [a, c], or lokr_w1_a [a, r] and lokr_w1_b [r, c]; lokr_w2 [b, d, *k], or of low rank too."""
    first = tensors.get('lokr_w1')
    first = tensors['lokr_w1_a'] @ tensors['lokr_w1_b'] if first is None else first
    if 'lokr_w2' in tensors:
        second = tensors['lokr_w2']
    elif 'lokr_t2' in tensors:
        second = jnp.einsum(
            'pqkl,pb,qd->bdkl', tensors['lokr_t2'], tensors['lokr_w2_a'], tensors['lokr_w2_b']
        )
    else:
        flat = tensors['lokr_w2_a'] @ tensors['lokr_w2_b']
        second = flat.reshape(flat.shape[0], -1, *weight.shape[2:])
    product = jnp.kron(first.reshape(*first.shape, *(1,) * (second.ndim - 2)), second)
    rank = next((tensors[name].shape[0] for name in ('lokr_w2_b', 'lokr_w1_b') if name in tensors), None)
    if rank is None:
        tensors = {name: array for name, array in tensors.items() if name != 'alpha'}
    own = scales.scale(tensors, rank or 1)
    return scales.decomposed(tensors, weight, own * product.reshape(weight.shape))
