"""The U-Net: its errors, precision, remat, logical axes. test_unet_{diffusers,original}.py compare its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.models import layers, unet
from ldm_jax.types import Cond
from tests import oracles
from tests.models.unets import draw, evaluate, fill

# One level where what is tested does not depend on how many there are.
SMALL = unet.Model(
    channels=8, channel_mult=(1,), num_res_blocks=1, depth=(1,), num_groups=4, num_heads=2, context_width=6
)


@pytest.fixture(scope='module')
def params():
    return fill(SMALL)


@pytest.fixture(scope='module')
def inputs():
    return trees.cast(draw(SMALL), jnp.float32)


@pytest.fixture(scope='module')
def output(params, inputs):
    return evaluate(SMALL, params, *inputs)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(), 'either num_heads or head_width; got None and None'),
        (dict(num_heads=8, head_width=64), 'either num_heads or head_width; got 8 and 64'),
        (dict(num_heads=8, depth=(1, 1)), r'depth \(1, 1\) must have one entry for each level'),
        (dict(num_heads=8, depth=(1, 2, 1, 0)), r'without context_width, depth \(1, 2, 1, 0\)'),
        (dict(num_heads=8, mid_depth=3), 'mid_depth 3 must be 0 or 1'),
        (dict(num_heads=8, context_width=6, cross_attention_only=(True,)), r'\(True,\) needs context_width'),
        (dict(num_heads=8, cross_attention_only=(True,) * 4), 'needs context_width'),
        (dict(num_heads=8, channels=100), '100 channels do not split into num_groups=32'),
        (dict(num_heads=7), 'over 320 channels does not split into num_heads=7'),
        (dict(head_width=48), 'over 320 channels does not split into num_heads=None or head_width=48'),
    ],
)
def test_fields_that_do_not_go_together_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        unet.Model(**fields)


TWO_LEVELS = dict(channels=8, channel_mult=(1, 2), depth=(1, 1), num_groups=4, num_heads=2)
TEXT = dict(TWO_LEVELS, context_width=6)


@pytest.mark.parametrize(
    ('fields', 'x', 'cond', 'message'),
    [
        (
            TWO_LEVELS,
            (2, 8, 8, 5),
            {},
            r'takes 4 channels.*got 5 \+ 0.*leave Cond.concat out.*in_channels=5',
        ),
        (
            dict(TWO_LEVELS, in_channels=9),
            (2, 8, 4, 4),
            {},
            r'takes 9 channels.*got 4 \+ 0.*concat=\[B, 8, 4, 5\].*in_channels=4',
        ),
        (
            dict(TWO_LEVELS, in_channels=9),
            (2, 8, 8, 4),
            dict(concat=(2, 8, 8, 4)),
            r'takes 9 channels.*got 4 \+ 4',
        ),
        (
            dict(TWO_LEVELS, in_channels=5),
            (2, 8, 8, 4),
            dict(concat=(2, 64, 64, 1)),
            r'the size of x, 8 x 8; got \(64, 64\)',
        ),
        (TWO_LEVELS, (2, 8, 7, 4), {}, 'multiples of 2.*halve them 1 times; got 8 x 7'),
        (TEXT, (2, 8, 8, 4), {}, r'needs Cond.context \(width 6\)'),
        (TEXT, (2, 8, 8, 4), dict(context=(2, 7, 5)), r'6 wide.*\(2, 7, 5\).*encoder'),
        (
            TEXT,
            (2, 8, 8, 4),
            dict(context=(1, 7, 6)),
            r'Cond.context must be \[B, L, D\] with B = 2.*\(1, 7, 6\)',
        ),
        (TWO_LEVELS, (2, 8, 8, 4), dict(context=(2, 7, 6)), r'takes no Cond.context; got shape \(2, 7, 6\)'),
        (TWO_LEVELS, (2, 8, 8, 4), dict(vector=(2, 6)), 'takes no Cond.vector'),
        (TWO_LEVELS, (2, 8, 8, 4), dict(label=(2,)), 'takes no Cond.label'),
        (dict(TWO_LEVELS, vector_width=6), (2, 8, 8, 4), {}, r'needs Cond.vector \(width 6\)'),
        (dict(TWO_LEVELS, vector_width=6), (2, 8, 8, 4), dict(vector=(2, 5)), 'Cond.vector must be 6 wide'),
        (
            dict(TWO_LEVELS, vector_width=6),
            (2, 8, 8, 4),
            dict(vector=(2, 1, 6)),
            r'Cond.vector must be \[B, D\] with B = 2.*\(2, 1, 6\)',
        ),
        (TWO_LEVELS, (2, 8, 8, 4), dict(perturbed=(1,)), r'Cond.perturbed must be \[B\] with B = 2'),
        (
            dict(TEXT, perturbed=('mid', 'up_0'), cross_attention_only=(True, False)),
            (2, 8, 8, 4),
            dict(context=(2, 7, 6), perturbed=(2,)),
            "to perturb 'up_0'; have .*'down_1_attn_1', 'mid_attn', 'up_1_attn_0'",
        ),
        (dict(TWO_LEVELS, num_classes=9), (2, 8, 8, 4), {}, r'needs Cond.label \(integers below 9\)'),
        (
            dict(TWO_LEVELS, num_classes=9),
            (2, 8, 8, 4),
            dict(label=(3,)),
            r'Cond.label must be \[B\] with B = 2',
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(fields, x, cond, message):
    shapes = {
        part: jax.ShapeDtypeStruct(shape, jnp.int32 if part == 'label' else jnp.float32)
        for part, shape in cond.items()
    }
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            unet.Model(**fields).init,
            jax.random.key(0),
            jax.ShapeDtypeStruct(x, jnp.float32),
            jax.ShapeDtypeStruct((2,), jnp.float32),
            Cond(**shapes),
        )


@pytest.mark.slow
def test_no_perturbed_example_changes_nothing(params, inputs, output):
    x, t, cond = inputs
    alike = evaluate(SMALL, params, x, t, cond.replace(perturbed=jnp.zeros(2, bool)))
    assert oracles.relative_error(alike, output) < 1e-6


@pytest.mark.slow
def test_one_time_serves_the_whole_batch_and_examples_do_not_mix(params, inputs, output):
    x, t, cond = inputs
    reverse = jax.tree.map(lambda a: a[::-1], (x, cond))
    alike = evaluate(SMALL, params, reverse[0], t[1], reverse[1])
    assert oracles.relative_error(alike[0], output[1]) < 1e-6
    assert oracles.relative_error(alike[1], output[0]) > 1e-2  # whose time was another


@pytest.mark.slow
def test_bfloat16_is_near_float32(params, inputs, output):
    low = evaluate(SMALL.clone(dtype=jnp.bfloat16), params, *inputs)
    assert low.dtype == jnp.float32  # as x is, whatever the compute dtype
    assert 1e-4 < oracles.relative_error(low, output) < 5e-2


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_output_has_the_dtype_of_x(params, inputs, dtype):
    x, t, cond = inputs
    output = jax.eval_shape(lambda x: SMALL.apply({'params': params}, x, t, cond), x.astype(dtype))
    assert output.dtype == dtype
    assert output.shape == x.shape


@pytest.mark.slow
def test_remat_covers_every_block(params, inputs):
    def blocks(remat):
        model = SMALL.clone(remat=remat)
        steps = jax.make_jaxpr(lambda *inputs: model.apply({'params': params}, *inputs))(*inputs).eqns
        return sum('remat' in step.primitive.name for step in steps)

    assert blocks(False) == 0
    # Residual blocks and attention: 1 each down, 2 and 1 in the middle, 2 each up.
    assert blocks(True) == 5 + 4


@pytest.mark.slow
@pytest.mark.parametrize('context_width', [6, None])
def test_remat_changes_neither_output_nor_gradients(context_width):
    model = SMALL.clone(context_width=context_width)
    params, inputs = fill(model), trees.cast(draw(model), jnp.float32)

    def loss_and_gradients(remat):
        def loss(params):
            return jnp.mean(model.clone(remat=remat).apply({'params': params}, *inputs) ** 2)

        loss, gradients = jax.jit(jax.value_and_grad(loss))(params)
        return float(loss), trees.named(gradients)

    (loss, gradients), (loss_again, gradients_again) = loss_and_gradients(False), loss_and_gradients(True)
    assert loss_again == pytest.approx(loss, rel=1e-6)
    # Of the largest gradient: that of a key's bias is exactly 0, but for rounding.
    scale = max(np.abs(gradient).max() for gradient in gradients.values())
    for path, gradient in gradients.items():
        assert np.abs(gradients_again[path] - gradient).max() < 1e-5 * scale, path


@pytest.mark.parametrize(
    'fields',
    [
        dict(TEXT, vector_width=20, num_classes=10),
        dict(TWO_LEVELS, scale_shift=True, resblock_updown=True),
    ],
)
def test_every_axis_of_every_parameter_has_a_documented_name(fields):
    model = unet.Model(**fields)
    axes = jax.tree_util.tree_leaves_with_path(
        trees.logical_axes(model, size=model.downscale),
        is_leaf=lambda leaf: isinstance(leaf, jax.sharding.PartitionSpec),
    )
    shapes = trees.named(trees.shapes(model, size=model.downscale))
    named = {jax.tree_util.keystr(path, simple=True, separator='/'): spec for path, spec in axes}
    assert named.keys() == shapes.keys()
    for path, spec in named.items():
        assert len(spec) == len(shapes[path].shape), path
        assert all(name is None or f"'{name}'" in layers.__doc__ for name in spec), (path, spec)
        assert any(spec), path
