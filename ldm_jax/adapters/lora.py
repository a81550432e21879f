"""LoRA and LoCon: a product of two thin matrices, for convolutions with a small kernel between or within.

dW = alpha / r  up down, or with a core einsum(mid, up, down) (Tucker's decomposition).
Ref: Hu et al. 2021, arXiv:2106.09685, section 4.1; LoCon: Yeh et al. 2023, arXiv:2309.14859.
"""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters import scale as scales
from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

NEEDS = (('lora_up', 'lora_down'),)
TAKES = ('lora_mid', *scales.TAKES)


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: lora_up [o, r], lora_down [r, i, *k], perhaps lora_mid [r, r, *k], alpha [], dora_scale."""
    up, down = tensors['lora_up'], tensors['lora_down']
    rank = down.shape[0]
    if 'lora_mid' in tensors:
        up, down = up.reshape(up.shape[:2]), down.reshape(down.shape[:2])
        product = jnp.einsum('nmkl,on,mi->oikl', tensors['lora_mid'], up, down)
    else:
        product = up.reshape(up.shape[0], -1) @ down.reshape(rank, -1)
    difference = scales.scale(tensors, rank) * product.reshape(weight.shape)
    return scales.decomposed(tensors, weight, difference)
