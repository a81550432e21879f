"""Trained parameters for a network that takes more channels than theirs did."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ldm_jax import trees
from ldm_jax.types import Array, PyTree

FIRST = 'conv_in/kernel'  # [3, 3, channels, features]; those of x come first, then those of Cond.concat


def fitted(params: PyTree, shapes: PyTree) -> PyTree:
    """Parameters of the shapes wanted: as they are, but that channels added to the first convolution start at zero.

    The network then gives what it gave before, whatever the new channels hold.

    Raises ValueError when anything else differs, naming it.
    """
    have, want = trees.named(params), trees.named(shapes)
    if have.keys() != want.keys():
        missing, extra = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
        raise ValueError(
            f'The initial parameters are of another network: {len(missing)} missing ({missing[:3]} ...), {len(extra)} '
            f'left over ({extra[:3]} ...). Give the settings of the model that they are of, or start from fresh ones.'
        )
    leaves = [_leaf(name, leaf, want[name].shape) for name, leaf in have.items()]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def _leaf(name: str, leaf: Array, shape: tuple[int, ...]) -> Array:
    if leaf.shape == shape:
        return jnp.array(leaf)  # a copy, which may be donated
    added = shape[2] - leaf.shape[2] if name == FIRST else 0
    if added < 1 or leaf.shape[:2] + leaf.shape[3:] != shape[:2] + shape[3:]:
        raise ValueError(
            f'The initial {name} is {list(leaf.shape)}, and this network wants {list(shape)}. Only channels added to '
            'the first convolution can be made up for.'
        )
    return jnp.pad(jnp.asarray(leaf), ((0, 0), (0, 0), (0, added), (0, 0)))
