"""LoHa: the elementwise product of two low-rank matrices, dW = alpha / r (w1_a w1_b) * (w2_a w2_b).

Ref: Hyeon-Woo et al. 2021, arXiv:2108.06098 (FedPara); Yeh et al. 2023, arXiv:2309.14859.
"""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters import scale as scales
from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

NEEDS = (('hada_w1_a', 'hada_w1_b', 'hada_w2_a', 'hada_w2_b'),)
TAKES = ('hada_t1', 'hada_t2', *scales.TAKES)


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: hada_w*_a [o, r], hada_w*_b [r, i k k]; with cores hada_t* [r, r, k, k] a [r, o] and b [r, i]."""

    def factor(i):
        a, b = tensors[f'hada_w{i}_a'], tensors[f'hada_w{i}_b']
        core = tensors.get(f'hada_t{i}')
        return a @ b if core is None else jnp.einsum('pqkl,po,qi->oikl', core, a, b)

    product = (factor(1) * factor(2)).reshape(weight.shape)
    rank = tensors['hada_w1_b'].shape[0]
    return scales.decomposed(tensors, weight, scales.scale(tensors, rank) * product)
