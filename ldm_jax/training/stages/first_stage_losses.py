"""The terms that a first stage's losses are made of; how they add up stands at the head of first_stage.py."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from ldm_jax.types import Array, PyTree

EPSILON, MOST = 1e-4, 1e4  # of the adaptive weight

PIXEL = {'l1': jnp.abs, 'l2': jnp.square}
# loss of the discriminator's (real, fake) logits, elementwise
ADVERSARIAL = {
    'hinge': lambda real, fake: (nn.relu(1 - real), nn.relu(1 + fake)),
    'vanilla': lambda real, fake: (nn.softplus(-real), nn.softplus(fake)),
}


@struct.dataclass
class Adversary:
    """The discriminator as the generator's loss meets it: fixed."""

    params: PyTree
    active: Array  # bool: whether disc_start is reached
    axis_name: str | None = struct.field(pytree_node=False, default=None)  # of pmap, when under it


def adaptive_weight(d_nll: Array, d_g: Array) -> Array:
    """min(|d_nll| / (|d_g| + 1e-4), 1e4) of two gradients with respect to one kernel. Ref: Esser et al., eq. 7."""
    ratio = jnp.linalg.norm(d_nll.ravel()) / (jnp.linalg.norm(d_g.ravel()) + EPSILON)
    return jnp.clip(ratio, 0.0, MOST)


def mean(x: Array, axis_name: str | None) -> Array:
    return x if axis_name is None else jax.lax.pmean(x, axis_name)


def with_gradient(value: Array, gradient: PyTree, x: PyTree) -> Array:
    """The value, whose derivative with respect to x is the gradient that is given."""
    value, gradient = jax.lax.stop_gradient((value, gradient))
    zeros = jax.tree.map(lambda g, a: jnp.sum(g * (a - jax.lax.stop_gradient(a))), gradient, x)
    return value + sum(jax.tree.leaves(zeros))
