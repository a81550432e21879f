"""Networks with adapters beside their parameters, as factors in the program.

The factors are a collection of variables of their own, 'adapters', nested as the modules are: below a layer's path and
the number of the adapter

    down [*k, i, r], up [r, o]     y + s (x * down) up, a LoRA with its scale in `up`
    and magnitude [o]              W' = m V / norm(V), V = W + down up, a DoRA of outputs
    kernel [*k, i, o], bias [o]    y + s (x * kernel + bias), any other change of a linear layer or a convolution
    scale [c], bias [c]            y + s (normed scale + bias), that of a norm

so that gradients flow to them, and strengths s [B, K] of K adapters may be each image's own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.types import Array, PyTree

COLLECTION = 'adapters'
LAYERS = (nn.Dense, nn.Conv, nn.GroupNorm, nn.LayerNorm)


def apply(
    module: nn.Module,
    params: PyTree,
    *args: Any,
    adapters: PyTree | None = None,
    strengths: Array | None = None,
    **kwargs: Any,
) -> Any:
    """A network's answer, with adapters in it where there are any.

    Args:
        adapters: the collection; None or {} is the network itself.
        strengths: [B, K] of the images of a batch, which may be that of several conditionings one after the other; 1
            by default.
    """
    if not adapters:
        return module.apply({'params': params}, *args, **kwargs)
    with nn.intercept_methods(functools.partial(_with_factors, strengths)):
        return module.apply({'params': params, COLLECTION: adapters}, *args, **kwargs)


def count(adapters: Mapping[str, PyTree]) -> int:
    """The number K of adapters whose factors the parts of a model hold."""
    paths = jax.tree_util.tree_flatten_with_path(adapters)[0]
    return 1 + max((int(path[-2].key) for path, _ in paths), default=-1)


def _with_factors(strengths, call, args, kwargs, context):
    y, module = call(*args, **kwargs), context.module
    if context.method_name != '__call__' or not isinstance(module, LAYERS):
        return y
    for number, factors in module.variables.get(COLLECTION, {}).items():
        added = _added(module, factors, args[0]).astype(y.dtype)
        y = y + (added if strengths is None else _each(strengths[:, int(number)], y).astype(y.dtype) * added)
    return y


def _each(strength: Array, y: Array) -> Array:
    """Strengths [B] for outputs [N B, ...]; one output for all images, a text's that they share, has the first's."""
    strength = strength[: len(y)]
    return jnp.tile(strength, len(y) // len(strength)).reshape(-1, *(1,) * (y.ndim - 1))


def _added(module: nn.Module, factors: Mapping[str, Array], x: Array) -> Array:
    """What an adapter adds to a layer's output at strength 1."""
    if isinstance(module, nn.GroupNorm | nn.LayerNorm):
        normed = module.clone(use_scale=False, use_bias=False, parent=None, name=None).apply({}, x)
        return normed * factors.get('scale', 0.0) + factors.get('bias', 0.0)
    x = x.astype(module.dtype or x.dtype)
    factors = {name: array.astype(x.dtype) for name, array in factors.items()}
    if 'magnitude' in factors:
        kernel = module.get_variable('params', 'kernel').astype(x.dtype)
        return _linear(module, x, decomposed(kernel, factors) - kernel)
    if 'down' in factors:
        return _linear(module, x, factors['down']) @ factors['up']
    y = _linear(module, x, factors['kernel']) if 'kernel' in factors else 0.0
    return y + factors.get('bias', 0.0)


def decomposed(kernel: Array, factors: Mapping[str, Array]) -> Array:
    """The kernel [*k, i, o] of a DoRA. Gradients leave its norm out (arXiv:2402.09353, section 4.3)."""
    moved = kernel + factors['down'] @ factors['up']
    norm = jnp.sqrt(jnp.sum(moved**2, axis=tuple(range(moved.ndim - 1))))
    return moved * (factors['magnitude'] / jax.lax.stop_gradient(norm))


def _linear(module: nn.Module, x: Array, kernel: Array) -> Array:
    """x through a kernel as the layer's own goes through its."""
    if isinstance(module, nn.Dense):
        return x @ kernel
    return jax.lax.conv_general_dilated(
        x, kernel, module.strides or (1, 1), module.padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
