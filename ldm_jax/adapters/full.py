"""Full differences: the whole change of a weight, and of its bias."""

from __future__ import annotations

import jax.numpy as jnp

from ldm_jax.adapters.kinds import Tensors
from ldm_jax.types import Array

NEEDS = (('diff',), ('diff_b',))
TAKES = ('diff_b', 'alpha')
BIAS = 'diff_b'


def change(tensors: Tensors, weight: Array) -> Array:
    """Tensors: diff, like the weight, and diff_b [o] for the bias, either alone too; alpha means nothing."""
    if 'diff' not in tensors:
        return jnp.zeros_like(weight)
    return tensors['diff'].reshape(weight.shape)
