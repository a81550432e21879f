"""Parameter trees: made from a model, named by path, counted, cast."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.denoising import inputs_of
from ldm_jax.types import Array, PyTree


def init(model: nn.Module, key: Array, batch: int = 1, size: int | None = None) -> PyTree:
    """Fresh float32 parameters of a model: nested dicts of arrays.

    Args:
        model: a Model of ldm_jax/models; its `inputs(batch, size)` says what it is called with.
        key: PRNG key.
        batch, size: of the example input; parameters do not depend on them.
    """

    # XLA takes minutes to compile the Threefry of a few hundred leaves for a CPU, seconds with its own generator.
    key = jax.random.wrap_key_data(jnp.resize(jax.random.key_data(key), 4), impl='rbg')

    def fresh_parameters(key):
        inputs = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), inputs_of(model, batch, size))
        return nn.meta.unbox(model.init(key, *inputs)['params'])

    return jax.jit(fresh_parameters)(key)  # jit: the example forward pass is dead code, so it is never run


def shapes(model: nn.Module, batch: int = 1, size: int | None = None) -> PyTree:
    """The parameters' shapes and dtypes (jax.ShapeDtypeStruct) without making them."""
    return nn.meta.unbox(_boxed(model, batch, size))


def logical_axes(model: nn.Module, batch: int = 1, size: int | None = None) -> PyTree:
    """Each parameter's logical axis names as a PartitionSpec, such as P('embed', 'heads').

    Sharding rules (flax.linen.logical_to_mesh) turn them into mesh axes without touching a network.
    """
    return nn.get_partition_spec(_boxed(model, batch, size))


def _boxed(model: nn.Module, batch: int, size: int | None) -> PyTree:
    return jax.eval_shape(model.init, jax.random.key(0), *inputs_of(model, batch, size))['params']


def count(tree: PyTree) -> int:
    """How many numbers the leaves (arrays or ShapeDtypeStructs) of a tree hold."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def named(tree: PyTree) -> dict[str, Any]:
    """The leaves by path, such as 'mid_attn/q/kernel', in the tree's own order."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def cast(tree: PyTree, dtype: jnp.dtype) -> PyTree:
    """The tree with its floating-point leaves in another dtype; integers stay as they are."""

    def convert(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(convert, tree)
