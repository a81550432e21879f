"""Adapters merged into a model's parameters, on the devices and in the shards in which those lie."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import trees
from ldm_jax.adapters import kinds
from ldm_jax.adapters.blocks import Strength
from ldm_jax.adapters.files import Adapter, Change
from ldm_jax.checkpoints.layouts.adapter_names import Layer
from ldm_jax.checkpoints.layouts.rules import unflatten
from ldm_jax.types import Array, PyTree

Use = tuple[Adapter, Strength]


def merged(params: Mapping[str, PyTree], used: Sequence[Use]) -> dict[str, PyTree]:
    """The parameters with adapters in them, one after the other: W + s (W' - W), where W' is made of the running W.

    Sums are in float32 (float64 for such parameters) and cast once. What no adapter touches is the same array, and
    with a strength of 0 everything is.

    Args:
        params: part -> parameters, arrays on devices or the host's.
        used: adapters with their strengths, in the order in which they act.

    Raises ValueError for an adapter whose shapes do not fit the parameters; nothing is merged then.
    """
    leaves = {
        f'{part}/{path}': leaf for part, tree in params.items() for path, leaf in trees.named(tree).items()
    }
    plans = _plans(used)
    for layer, steps in plans.items():
        for adapter, change, _ in steps:
            check(adapter, layer, change, leaves)
    for layer, steps in plans.items():
        changes = [change for _, change, _ in steps]
        strengths = np.asarray([strength for _, _, strength in steps])
        leaves[layer.weight] = _weight(changes, strengths, leaves[layer.weight])
        for change, strength in zip(changes, strengths, strict=True):
            if (added := bias(change)) is not None:
                leaves[layer.bias] = _added(leaves[layer.bias], added, strength)
    grouped: dict[str, dict[str, Array]] = {part: {} for part in params}
    for path, leaf in leaves.items():
        part, _, rest = path.partition('/')
        grouped[part][rest] = leaf
    touched = {layer.part for layer in plans}
    return {part: unflatten(grouped[part]) if part in touched else params[part] for part in params}


def check(adapter: Adapter, layer: Layer, change: Change, leaves: Mapping[str, Array]) -> None:
    """Raises ValueError where a change does not fit the weight of its layer, or its bias."""
    where = f'{adapter.name}: of {layer.part} {layer.name} '
    leaf = leaves.get(layer.weight)
    if leaf is None:
        raise ValueError(f'{where}this model has no weight; it was opened without {layer.part}.')
    try:
        kinds.check(change.kind, change.tensors, torch_shape(leaf.shape))
    except ValueError as error:
        raise ValueError(f'{where}{error}: it was made for another model.') from None
    added = bias(change)
    if added is not None and (layer.bias not in leaves or leaves[layer.bias].shape != added.shape):
        raise ValueError(f'{where}the bias {list(added.shape)} does not fit: it was made for another model.')


def torch_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a weight in torch: kernels [*k, i, o] are [o, i, *k] there."""
    return (*tuple(shape)[:-3:-1], *tuple(shape)[:-2])


def to_torch(weight: Array) -> Array:
    """A kernel [*k, i, o] as torch has it, [o, i, *k]; a vector as it is."""
    axes = tuple(range(weight.ndim))
    return weight.transpose(*axes[:-3:-1], *axes[:-2])


def from_torch(weight: Array) -> Array:
    """The inverse of `to_torch`."""
    axes = tuple(range(weight.ndim))
    return weight.transpose(*axes[2:], *axes[1::-1]) if weight.ndim > 1 else weight


def _plans(used: Sequence[Use]) -> dict[Layer, list[tuple[Adapter, Change, float]]]:
    plans: dict[Layer, list[tuple[Adapter, Change, float]]] = {}
    for adapter, strength in used:
        for layer, change in adapter.changes.items():
            if value := strength.of(layer):
                plans.setdefault(layer, []).append((adapter, change, value))
    return plans


def _weight(changes: Sequence[Change], strengths: np.ndarray, leaf: Array) -> Array:
    """The weight of a layer after several changes, where it was and sharded as it was."""
    names = tuple(change.kind for change in changes)
    tensors = [{name: np.asarray(array, np.float32) for name, array in c.tensors.items()} for c in changes]
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    found = _changed(names, sharding)(leaf, tensors, strengths.astype(np.float32))
    return found if sharding is not None else np.asarray(found)


@functools.lru_cache(512)
def _changed(names: tuple[str, ...], sharding: jax.sharding.Sharding | None):
    def run(leaf, tensors, strengths):
        weight = to_torch(leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)))
        for i, (kind, own) in enumerate(zip(names, tensors, strict=True)):
            with jax.default_matmul_precision('highest'):
                weight = weight + strengths[i].astype(weight.dtype) * kinds.change(kind, own, weight)
        return from_torch(weight).astype(leaf.dtype)

    return jax.jit(run) if sharding is None else jax.jit(run, out_shardings=sharding)


def bias(change: Change) -> np.ndarray | None:
    """The change of the bias at strength 1, or None."""
    name = {'norm': 'b_norm', 'full': 'diff_b'}.get(change.kind)
    return (
        None if name is None or name not in change.tensors else np.asarray(change.tensors[name], np.float32)
    )


def _added(leaf: Array, added: np.ndarray, strength: float) -> Array:
    wide = jnp.promote_types(leaf.dtype, jnp.float32)
    found = (leaf.astype(wide) + np.asarray(strength * added, wide)).astype(leaf.dtype)
    return jax.device_put(found, leaf.sharding) if isinstance(leaf, jax.Array) else np.asarray(found)
