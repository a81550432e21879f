"""A state as arrays by path, PRNG keys among them as the integers they are, and back."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import trees
from ldm_jax.types import Array, PyTree


def plain(state: PyTree) -> dict[str, Any]:
    """Leaves by path, PRNG keys as the integers they are."""
    leaves = {}
    for name, leaf in trees.named(state).items():
        if _is_key(leaf):
            if isinstance(leaf, jax.ShapeDtypeStruct):
                data = jax.eval_shape(jax.random.key_data, leaf)
                leaf = data.update(sharding=leaf.sharding)
            else:
                leaf = jax.random.key_data(leaf)
        leaves[name] = leaf
    return leaves


def typed(leaves: Mapping[str, Array], like: PyTree, keys: Mapping[str, str]) -> PyTree:
    """The inverse of _plain."""
    found = [
        jax.random.wrap_key_data(leaves[name], impl=keys[name]) if name in keys else leaves[name]
        for name in trees.named(like)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def prng_keys(state: PyTree) -> dict[str, str]:
    """The kind of each leaf that is a PRNG key."""
    return {
        name: str(jax.random.key_impl(leaf)) for name, leaf in trees.named(state).items() if _is_key(leaf)
    }


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def sharding_of(leaf: Any) -> jax.sharding.Sharding:
    sharding = getattr(leaf, 'sharding', None)
    return sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def check(directory: pathlib.Path, entries: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    ours = {name: (list(leaf.shape), str(leaf.dtype)) for name, leaf in wanted.items()}
    theirs = {name: (entry['shape'], entry['dtype']) for name, entry in entries.items()}
    differing = {
        name: (theirs.get(name, 'absent'), ours.get(name, 'absent'))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    }
    if differing:
        some = dict(list(differing.items())[:5])
        raise ValueError(
            f'{directory} is a state with other arrays than this run has; {len(differing)} differ, such as (stored, '
            f'wanted): {some}. Resume with the config and the version that wrote it, or choose another workdir.'
        )
