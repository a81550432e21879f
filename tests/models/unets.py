"""What the tests of the U-Net share: cases, inputs, parameters, and the error of one evaluation."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.types import Cond
from tests import oracles


def cases(names, fast):
    """Each name in float64 and float32: (name, dtype, tolerance). Slow but for those named fast, in float64."""
    return [
        pytest.param(
            name,
            dtype,
            tolerance,
            marks=() if dtype == 'float64' and name in fast else pytest.mark.slow,
            id=f'{name}-{dtype}',
        )
        for name in names
        for dtype, tolerance in (('float64', 1e-9), ('float32', 1e-5))
    ]


def draw(model, seed=0):
    """Inputs of two examples, taller than wide so that no transposition goes unseen."""
    normal = np.random.default_rng(seed).standard_normal
    concat = model.in_channels - model.out_channels
    cond = Cond(
        context=normal((2, 7, model.context_width)) if model.context_width else None,
        concat=normal((2, 12, 8, concat)) if concat else None,
        vector=normal((2, model.vector_width)) if model.vector_width else None,
        label=np.array([7, 2]) if model.num_classes else None,
        guidance=np.array([1.5, 8.0]) if model.guidance_width else None,
    )
    return normal((2, 12, 8, model.out_channels)), np.array([3.0, 871.0]), cond


def fill(model, seed=0):
    """Random parameters, each of which matters to the output; the model's own would have to be compiled."""
    generator = np.random.default_rng(seed)

    def random(path, leaf):
        values = generator.standard_normal(leaf.shape)
        if path[-1].key == 'scale':
            return np.float32(1 + 0.2 * values)
        return np.float32(values / np.sqrt(np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 16))

    return jax.tree_util.tree_map_with_path(random, trees.shapes(model, size=model.downscale))


def evaluate(model, params, x, t, cond):
    """One evaluation, compiled."""
    return jax.jit(model.apply)({'params': params}, x, t, cond)


def error(model, params, inputs, expected, dtype):
    """The error of the output in a dtype, over the expected output's scale."""
    with oracles.float64() if dtype == 'float64' else contextlib.nullcontext():
        params, inputs = trees.cast((params, inputs), dtype)
        output = evaluate(model.clone(dtype=jnp.dtype(dtype)), params, *inputs)
    assert output.dtype == dtype
    return oracles.relative_error(output, expected)
