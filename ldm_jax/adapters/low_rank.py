"""LoRAs made of others and of whole models, by singular values: extracted, resized, merged into one.

Ref: kohya-ss/sd-scripts, networks/extract_lora_from_models.py, resize_lora.py and svd_merge_lora.py.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from ldm_jax import trees
from ldm_jax.adapters import apply, kinds
from ldm_jax.adapters.apply import Use
from ldm_jax.adapters.files import Adapter, Change
from ldm_jax.checkpoints.layouts.adapter_names import Layer
from ldm_jax.types import PyTree

LEAST = 0.01  # largest change of a text encoder below which it is left out, there too
DEPENDENT = (
    'ia3',
    'glora',
    'oft',
    'oft_input',
    'oft_matrix',
    'boft',
)  # kinds whose difference asks for the weight


def factors(
    difference: np.ndarray, rank: int | None = None, energy: float | None = None, clamp: float | None = None
) -> dict[str, np.ndarray]:
    """The LoRA nearest to a difference of weights [o, i, *k], alpha being its rank.

    Args:
        rank: at most; all of it by default.
        energy: the least rank is taken that keeps this share of the squared singular values.
        clamp: entries beyond this quantile of both factors' entries are cut to it.
    """
    matrix = np.asarray(difference, np.float32).reshape(len(difference), -1)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    count = len(values) if rank is None else min(rank, len(values))
    if energy is not None:
        kept = np.cumsum(values**2) / max(float(np.sum(values**2)), 1e-30)
        count = min(count, int(np.searchsorted(kept, energy)) + 1)
    up, down = left[:, :count] * values[:count], right[:count]
    if clamp is not None:
        most = np.quantile(np.concatenate([up.ravel(), down.ravel()]), clamp)
        up, down = np.clip(up, -most, most), np.clip(down, -most, most)
    ones = (1,) * (difference.ndim - 2)
    return {
        'lora_up': np.ascontiguousarray(up.reshape(len(up), count, *ones)),
        'lora_down': np.ascontiguousarray(down.reshape(count, *difference.shape[1:])),
        'alpha': np.asarray(count, np.float32),
    }


def extracted(
    name: str,
    layers: Iterable[Layer],
    tuned: Mapping[str, PyTree],
    base: Mapping[str, PyTree],
    rank: int,
    conv_rank: int | None = None,
    clamp: float | None = None,
) -> tuple[Adapter, float]:
    """The LoRA that leads from one model to another of the same networks, and the share of the difference that it is.

    Args:
        layers: that may have one; embeddings, norms and biases never do.
        tuned, base: part -> parameters.
        conv_rank: of convolutions with a window; None leaves them out.
        clamp: as `factors` takes it; kohya's script has 0.99, at the price of a part of the difference.

    A text encoder that changed by no more than 0.01 anywhere is left out.

    Raises ValueError where nothing changed.
    """
    one, other = ({part: trees.named(tree) for part, tree in params.items()} for params in (tuned, base))
    changes: dict[Layer, Change] = {}
    lost = whole = 0.0
    moved: dict[str, list[tuple[Layer, np.ndarray]]] = {}
    for layer in layers:
        if layer.leaf != 'kernel':
            continue
        path = f'{layer.path}/kernel'
        pair = (
            np.asarray(apply.to_torch(np.asarray(own[layer.part][path], np.float32))) for own in (one, other)
        )
        moved.setdefault(layer.part, []).append((layer, np.subtract(*pair)))
    for part, differences in moved.items():
        if part != 'unet' and max(float(np.abs(d).max()) for _, d in differences) <= LEAST:
            continue
        for layer, difference in differences:
            size, windowed = float(np.sum(difference**2)), difference.ndim > 2
            whole += size
            own = conv_rank if windowed else rank
            if own is None or not size:
                lost += size
                continue
            tensors = factors(difference, own, clamp=clamp)
            product = np.asarray(kinds.change('lora', tensors, jnp.zeros(difference.shape)))
            lost += float(np.sum((difference - product) ** 2))
            changes[layer] = Change('lora', _windowed(tensors, layer))
    if not changes:
        raise ValueError('The two models have the same weights: there is nothing to extract.')
    return _adapter(name, changes), 1 - lost / whole


def resized(adapter: Adapter, rank: int | None = None, energy: float | None = None) -> Adapter:
    """The adapter as LoRA of at most a rank, or of the least rank that keeps a share of its energy.

    Raises ValueError for kinds whose change is not a product of its own.
    """
    changes = {
        layer: _resized(layer, [(change, 1.0)], rank, energy) for layer, change in adapter.changes.items()
    }
    return _adapter(adapter.name, changes, adapter.metadata)


def merged(name: str, used: Sequence[Use], rank: int | None = None) -> Adapter:
    """Several adapters with their strengths as one LoRA, exactly (its rank is the sum of theirs), or of a rank at most.

    Raises ValueError as `resized`.
    """
    steps: dict[Layer, list[tuple[Change, float]]] = {}
    for adapter, strength in used:
        for layer, change in adapter.changes.items():
            if value := strength.of(layer):
                steps.setdefault(layer, []).append((change, value))
    if not steps:
        raise ValueError('All strengths are 0: nothing is left to merge.')
    if rank is None and all(_is_plain(change) for own in steps.values() for change, _ in own):
        return _adapter(name, {layer: Change('lora', _joined(own)) for layer, own in steps.items()})
    return _adapter(name, {layer: _resized(layer, own, rank, None) for layer, own in steps.items()})


def _joined(steps: Sequence[tuple[Change, float]]) -> dict[str, np.ndarray]:
    """Factors side by side: the sum of the products."""
    ups, downs = [], []
    for change, strength in steps:
        tensors = {key: np.asarray(array, np.float32) for key, array in change.tensors.items()}
        rank = len(tensors['lora_down'])
        own = np.reshape(tensors.get('scale', tensors.get('alpha', np.float32(rank)) / rank), ())
        ups.append(strength * own * tensors['lora_up'])
        downs.append(tensors['lora_down'])
    down = np.concatenate(downs)
    return {
        'lora_up': np.concatenate(ups, axis=1),
        'lora_down': down,
        'alpha': np.asarray(len(down), np.float32),
    }


def _resized(
    layer: Layer, steps: Sequence[tuple[Change, float]], rank: int | None, energy: float | None
) -> Change:
    total: np.ndarray | None = None
    for change, strength in steps:
        if change.kind in (*DEPENDENT, 'norm') or {'dora_scale', 'magnitude'} & change.tensors.keys():
            raise ValueError(
                f'{layer.name} has a change ({change.kind}) that is no product of its own, but of the weight: merge '
                'such adapters into a model.'
            )
        if 'diff_b' in change.tensors:
            raise ValueError(f'{layer.name} has a change of its bias, which a LoRA does not hold.')
        shape = _shape(change)
        own = strength * np.asarray(kinds.change(change.kind, change.tensors, jnp.zeros(shape)))
        total = own if total is None else total + own.reshape(total.shape)
    assert total is not None
    return Change('lora', _windowed(factors(total, rank, energy), layer))


def _shape(change: Change) -> tuple[int, ...]:
    """The shape of the weight that a change is of."""
    tensors = change.tensors
    if change.kind == 'lora':
        core = tensors.get('lora_mid', tensors['lora_down'])
        return (tensors['lora_up'].shape[0], tensors['lora_down'].shape[1], *core.shape[2:])
    if change.kind == 'full':
        return tuple(tensors['diff'].shape)
    raise ValueError(
        f"The shape of a {change.kind} is the weight's: merge it into a model, and extract that."
    )


def _is_plain(change: Change) -> bool:
    return change.kind == 'lora' and change.tensors.keys() <= {'lora_up', 'lora_down', 'alpha', 'scale'}


def _windowed(tensors: dict[str, np.ndarray], layer: Layer) -> dict[str, np.ndarray]:
    """The factors with the axes of size 1 that a file's own 1x1 convolutions have."""
    ones = (1,) * layer.window
    if not ones or tensors['lora_down'].ndim > 2:
        return tensors
    return {
        name: array.reshape(*array.shape, *ones) if array.ndim == 2 else array
        for name, array in tensors.items()
    }


def _adapter(
    name: str, changes: Mapping[Layer, Change], metadata: Mapping[str, str] | None = None
) -> Adapter:
    return Adapter(name, changes, {}, {}, metadata or {}, pathlib.Path(f'{name}.safetensors'))
