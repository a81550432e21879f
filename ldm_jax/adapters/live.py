"""Adapters as factors in the program (ldm_jax/adapted.py): strengths are inputs then, each image's own if need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import trees
from ldm_jax.adapters import apply, kinds
from ldm_jax.adapters import scale as scales
from ldm_jax.adapters.apply import Use
from ldm_jax.adapters.files import Change
from ldm_jax.checkpoints.layouts.rules import unflatten
from ldm_jax.types import Array, PyTree

PLAIN = {'lora_up', 'lora_down', 'alpha', 'scale'}  # tensors of a LoRA that stays two factors


def factors(params: Mapping[str, PyTree], used: Sequence[Use]) -> dict[str, PyTree]:
    """part -> the collection of factors of K adapters, whose strengths are in them: at s = 1 they act with those.

    LoRAs stay two factors; of other kinds it is the difference that they make to the model's own weight, as large as
    that. Each adapter starts from that weight: several that depend on it (DoRA, OFT) add up rather than follow one
    another, unlike in `apply.merged`.

    Raises ValueError as `apply.merged`.
    """
    leaves = {
        f'{part}/{path}': leaf for part, tree in params.items() for path, leaf in trees.named(tree).items()
    }
    found: dict[str, dict[str, Array]] = {}
    for number, (adapter, strength) in enumerate(used):
        for layer, change in adapter.changes.items():
            if value := strength.of(layer):
                apply.check(adapter, layer, change, leaves)
                for name, array in _factors(change, leaves[layer.weight], layer.leaf).items():
                    once = value if name != 'down' else 1.0  # of a product
                    found.setdefault(layer.part, {})[f'{layer.path}/{number}/{name}'] = once * array
    return {part: unflatten(own) for part, own in found.items()}


def _factors(change: Change, leaf: Array, name: str) -> dict[str, np.ndarray]:
    """The factors of a change of a layer at strength 1."""
    tensors = change.tensors
    if change.kind == 'lora' and tensors.keys() <= PLAIN:
        up, down = (np.asarray(tensors[key], np.float32) for key in ('lora_up', 'lora_down'))
        if kinds.input_channels('lora', tensors) in (None, leaf.shape[-2]):
            rank = down.shape[0]
            down = down.reshape(rank, *apply.torch_shape(leaf.shape)[1:])
            own = np.asarray(scales.scale(tensors, rank), np.float32)
            return dict(down=apply.from_torch(down), up=own * up.reshape(-1, rank).T)
    weight = apply.to_torch(jnp.asarray(np.asarray(leaf), jnp.float32))
    with jax.default_matmul_precision('highest'):
        difference = apply.from_torch(kinds.change(change.kind, tensors, weight))
    found = {name: np.asarray(difference)}
    bias = apply.bias(change)
    return found if bias is None else found | dict(bias=bias)
