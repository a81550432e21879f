"""What every network must offer, at its defaults and without running it."""

import re

import jax
import jax.numpy as jnp
import pytest

from ldm_jax import build, trees
from ldm_jax.models import layers

NAMES = build.names('models')
AXES = set(re.findall(r"'(\w+)'", layers.__doc__)) - {'None'}


@pytest.fixture(scope='module', params=NAMES)
def model(request):
    # the defaults that must be chosen
    fields = {'unet': dict(num_heads=8, context_width=768)}.get(request.param, {})
    return build.build('models', dict(name=request.param, **fields))


@pytest.mark.slow
def test_inputs_are_what_call_takes_and_parameters_are_float32(model):
    shapes = trees.shapes(model)
    assert trees.count(shapes) > 0
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}


@pytest.mark.slow
def test_every_axis_of_every_parameter_has_a_documented_name_or_none(model):
    axes = trees.logical_axes(model)
    for path, shape in trees.named(trees.shapes(model)).items():
        names = axes
        for key in path.split('/'):
            names = names[key]
        assert len(names) == len(shape.shape), path
        assert set(names) - {None} <= AXES, path
        # only a window, or nothing larger than a few channels, may go without a name
        assert all(size <= 16 for name, size in zip(names, shape.shape, strict=True) if name is None), path


@pytest.mark.slow
def test_children_have_names_of_their_own(model):
    automatic = re.compile(r'(Dense|Conv|GroupNorm|LayerNorm|Embed|Attention|ResBlock|\w+Block)_\d+$')
    for path in trees.named(trees.shapes(model)):
        assert not any(automatic.match(part) for part in path.split('/')), path


@pytest.mark.slow
def test_the_compute_dtype_and_the_attention_backend_are_fields(model):
    changed = model.clone(dtype=jnp.bfloat16) if hasattr(model, 'dtype') else model
    out = jax.eval_shape(
        lambda p, *args: changed.apply({'params': p}, *args), trees.shapes(model), *model.inputs()
    )
    floats = [leaf for leaf in jax.tree.leaves(out) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert floats
    assert trees.shapes(changed) == trees.shapes(model)  # parameters stay float32
