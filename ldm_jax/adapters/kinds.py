"""The kinds of adapters: how tensors beside a layer change its weight.

A kind is a module of this folder with NEEDS and TAKES, the tensors that tell it and those that may be there too, and

    change(tensors, weight) -> the weight's difference at strength 1

Weights are torch's, [o, i], [o, i, *k] or a norm's [c]; tensors have the names of LyCORIS without '.weight'. With a
strength s the layer's weight is W + s change(W), whatever the kind, so that 0 is the model without the adapter and
what is between 0 and 1 lies on a straight line. (LyCORIS interpolates rotations instead, and its DoRA does not come
back to W at 0.)
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp

from ldm_jax.types import Array

NAMES = ('lora', 'loha', 'lokr', 'glora', 'ia3', 'oft', 'oft_input', 'oft_matrix', 'boft', 'norm', 'full')
Tensors = Mapping[str, Array]


def kind_of(tensors: Mapping[str, Array]) -> str:
    """The name of the kind that tensors are of. Raises ValueError for those of none."""
    rotations = tensors.get('oft_blocks')
    if rotations is not None:
        return 'boft' if len(rotations.shape) == 4 else 'oft'
    for name in NAMES:
        if _fits(tensors.keys(), name):
            return name
    raise ValueError(f'no kind of adapter has the tensors {sorted(tensors)}')


def changed(kind: str, tensors: Tensors, weight: Array) -> Array:
    """The weight with an adapter at strength 1; matrix products in full precision."""
    with jax.default_matmul_precision('highest'):
        return weight + change(kind, tensors, weight)


def change(kind: str, tensors: Tensors, weight: Array) -> Array:
    """The difference that an adapter makes to a weight at strength 1, in the weight's dtype.

    Where the adapter reads fewer input channels, as one of the base model does on an inpainting model's first
    convolution, the others stay as they are.
    """
    tensors = {name: jnp.asarray(array, weight.dtype) for name, array in tensors.items()}
    module, most = importlib.import_module(f'ldm_jax.adapters.{kind}'), input_channels(kind, tensors)
    if weight.ndim == 4 and most is not None and most < weight.shape[1]:
        rest = weight.shape[1] - most
        return jnp.pad(
            module.change(tensors, weight[:, :most]), ((0, 0), (0, rest)) + ((0, 0),) * (weight.ndim - 2)
        )
    return module.change(tensors, weight)


def check(kind: str, tensors: Mapping[str, Array], shape: tuple[int, ...]) -> None:
    """Raises ValueError where tensors do not fit a weight of a shape; nothing is computed."""
    _check(kind, tuple(sorted((name, tuple(a.shape)) for name, a in tensors.items())), tuple(shape))


def input_channels(kind: str, tensors: Mapping[str, Array]) -> int | None:
    """The input channels of the convolution that an adapter was made for, where its tensors say them."""
    name = {'lora': 'lora_down', 'full': 'diff'}.get(kind)
    return None if name is None or len(tensors[name].shape) != 4 else tensors[name].shape[1]


@functools.lru_cache(4096)
def _check(kind: str, shapes: tuple[tuple[str, tuple[int, ...]], ...], shape: tuple[int, ...]) -> None:
    def real(shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    tensors = {name: real(size) for name, size in shapes}
    try:
        found = jax.eval_shape(functools.partial(change, kind), tensors, real(shape)).shape
    except (TypeError, ValueError, IndexError, KeyError, ZeroDivisionError):
        found = None
    if found != shape:
        given = ', '.join(f'{name} {list(size)}' for name, size in shapes)
        raise ValueError(f'{given} do not fit a weight {list(shape)}')


def _fits(names: Collection[str], kind: str) -> bool:
    module = importlib.import_module(f'ldm_jax.adapters.{kind}')
    return any(set(needs) <= set(names) <= set(needs + module.TAKES) for needs in module.NEEDS)
