"""IA3: each output, or each input, of a layer is scaled: W (1 + w) on that axis.

Ref: Liu et al. 2022, arXiv:2205.05638, section 3.3.
"""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

NEEDS = (('weight', 'on_input'), ('ia3_l',))
TAKES = ()


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: weight [o] or [i] with on_input, 0 or 1; or PEFT's ia3_l, [o, 1] or [1, i], which starts at 1."""
    outputs, inputs = weight.shape[:2]
    rest = (1,) * (weight.ndim - 2)
    if 'ia3_l' in tensors:
        own = tensors['ia3_l'] - 1
        return weight * own.reshape(*own.shape[:2], *rest)
    own, on_input = tensors['weight'].reshape(-1), tensors['on_input'].reshape(())
    if outputs != inputs:
        return weight * own.reshape((outputs, 1, *rest) if len(own) == outputs else (1, inputs, *rest))
    return weight * jnp.where(on_input > 0, own.reshape(1, inputs, *rest), own.reshape(outputs, 1, *rest))
