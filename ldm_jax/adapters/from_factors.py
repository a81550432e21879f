"""Factors of a program (adapted.py) as an adapter, which `write` makes a file of."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ldm_jax import trees
from ldm_jax.adapters.apply import to_torch
from ldm_jax.adapters.files import Adapter, Change
from ldm_jax.checkpoints.layouts.adapter_names import Layer
from ldm_jax.types import PyTree


def adapter(
    name: str,
    factors: Mapping[str, PyTree],
    layers: Sequence[Layer],
    scale: Callable[[Layer], float] = lambda layer: 1.0,
) -> Adapter:
    """The LoRA or DoRA of factors down [*k, i, r], up [r, o] and perhaps magnitude [o], number 0 of each layer.

    scale: of a layer's product, alpha / rank, which is not in its factors.
    """
    leaves = trees.named(dict(factors))
    changes = {}
    for layer in layers:
        own = {
            key: np.asarray(leaves[path], np.float32)
            for key in ('down', 'up', 'magnitude')
            if (path := f'{layer.part}/{layer.path}/0/{key}') in leaves
        }
        axes = own['down'].ndim - 2 or layer.window  # of torch's kernel
        ones = (1,) * axes
        down, up, rank = np.asarray(to_torch(own['down'])), own['up'].T, len(own['up'])
        tensors = {
            'lora_down': down if down.ndim > 2 else down.reshape(*down.shape, *ones),
            'lora_up': up.reshape(*up.shape, *ones),
            'alpha': np.asarray(scale(layer) * rank, np.float32),
        }
        if 'magnitude' in own:
            tensors['dora_scale'] = own['magnitude'].reshape(-1, 1, *ones)
        changes[layer] = Change('lora', tensors)
    return Adapter(name, changes, {}, {}, {}, pathlib.Path(f'{name}.safetensors'))
