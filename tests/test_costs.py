"""Costs against counts made by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ldm_jax import costs
from ldm_jax.models import layers, unet
from ldm_jax.models.attention import Attention
from ldm_jax.types import Array


def real(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


class Whole(nn.Module):
    """Convolution, attention and a linear layer, in two levels of modules."""

    @nn.compact
    def __call__(self, x: Array, context: Array) -> Array:
        x = layers.conv(8, 3, stride=2, name='conv')(x)
        x = x.reshape(x.shape[0], -1, 8)
        x = x + Attention(2, 4, 8, name='attention')(x, context)
        return layers.dense(5, axes=('embed', 'mlp'), name='dense')(x)


INPUTS = (real(2, 6, 6, 3), real(2, 7, 10))
PIXELS = 2 * 3 * 3  # of two images, after the stride
PRODUCTS = 2 * PIXELS * 7 * 8  # q k^T and the weights times v, heads together 8 wide
MACS = {
    'conv': PIXELS * 9 * 3 * 8,
    'attention': PRODUCTS,
    'attention/q': PIXELS * 8 * 8,
    'attention/k': 2 * 7 * 10 * 8,
    'attention/v': 2 * 7 * 10 * 8,
    'attention/out': PIXELS * 8 * 8,
    'dense': PIXELS * 8 * 5,
}
PARAMS = {
    'conv': 9 * 3 * 8 + 8,
    'attention/q': 8 * 8,
    'attention/k': 10 * 8,
    'attention/v': 10 * 8,
    'attention/out': 8 * 8 + 8,
    'dense': 8 * 5 + 5,
}


def test_layers_are_those_counted_by_hand():
    found = costs.cost(Whole(), INPUTS).layers
    assert {layer.path: layer.macs for layer in found if layer.macs} == MACS
    assert {layer.path: layer.params for layer in found if layer.params} == PARAMS
    assert [array.shape for array in found[1].output] == [(2, 3, 3, 8)]
    assert found[1].path == 'conv'


def test_folding_keeps_the_sums():
    cost = costs.cost(Whole(), INPUTS)
    assert cost.macs == sum(MACS.values())
    assert cost.params == sum(PARAMS.values())
    for depth in range(4):
        rows = costs.folded(cost.layers, depth)
        assert sum(row.macs for row in rows) == cost.macs
        assert sum(row.params for row in rows) == cost.params
    (whole,) = costs.folded(cost.layers, 0)
    assert (whole.path, [array.shape for array in whole.output]) == ('', [(2, 9, 5)])
    rows = {row.path: row for row in costs.folded(cost.layers, 1)}
    assert list(rows) == ['conv', 'attention', 'dense']
    assert rows['attention'].params == 8 * 8 + 10 * 8 + 10 * 8 + 8 * 8 + 8
    assert [array.shape for array in rows['attention'].output] == [(2, 9, 8)]


def test_output_bytes_are_those_of_layers_with_parameters():
    # Conv, q, k and v, out, dense.
    outputs = PIXELS * 8 + PIXELS * 8 + 2 * (2 * 7 * 8) + PIXELS * 8 + PIXELS * 5
    assert costs.cost(Whole(), INPUTS).output_bytes == 4 * outputs


class Calls(nn.Module):
    """Calls a function of x [N, N] alone."""

    function: object

    def __call__(self, x: Array) -> Array:
        return self.function(x)


def macs(function, size=4):
    return costs.cost(Calls(function), (real(size, size),)).macs


def test_products_inside_loops_calls_and_branches():
    assert macs(lambda x: x @ x) == 64
    assert macs(jax.jit(lambda x: x @ x)) == 64
    assert macs(jax.checkpoint(lambda x: x @ x)) == 64
    assert macs(lambda x: jax.lax.fori_loop(0, 3, lambda i, a: a @ x, x)) == 3 * 64
    assert macs(lambda x: jax.lax.map(lambda row: x @ row, x)) == 4 * 16
    assert macs(lambda x: jax.lax.map(lambda row: x @ row, x, batch_size=3)) == 4 * 16
    nested = lambda x: jax.lax.map(lambda row: jax.lax.map(lambda y: y * (x @ row), row), x)  # noqa: E731
    assert macs(nested) == 4 * 4 * 16
    branches = (lambda a: a, lambda a: a @ a, lambda a: a @ a @ a)
    assert macs(lambda x: jax.lax.switch(x[0, 0].astype(int), branches, x)) == 2 * 64
    image, kernel = jnp.ones((1, 6, 5)), jnp.ones((9, 2, 3))  # N C W, O I W: three groups of two channels
    grouped = lambda x: jax.lax.conv_general_dilated(image, kernel, (1,), 'VALID', feature_group_count=3)  # noqa: E731
    assert macs(grouped) == 9 * 3 * 2 * 3  # channels out, positions, channels of a group, window


def test_loops_of_unknown_length_are_refused():
    def doubled(x):
        return jax.lax.while_loop(lambda a: a.sum() < 1, lambda a: a @ a, x)

    with pytest.raises(ValueError, match='while loop'):
        macs(doubled)
    assert macs(lambda x: jax.lax.while_loop(lambda a: a.sum() < 1, lambda a: a + 1, x)) == 0


def test_kernels_are_refused():
    kernel = jax.ffi.ffi_call('kernel', jax.ShapeDtypeStruct((4, 4), jnp.float32))
    with pytest.raises(ValueError, match='kernel through ffi_call'):
        macs(kernel)


def peak(function):
    return costs.cost(Calls(function), (real(8, 8),)).peak_bytes


def test_peak_bytes_of_a_chain():
    matrix = 4 * 64
    assert peak(lambda x: x + 1) == matrix
    assert peak(lambda x: ((x + 1) * 2) - 3) == 2 * matrix  # an operand and the result
    assert peak(lambda x: jnp.sin(x) @ jnp.cos(x)) == 3 * matrix
    assert peak(lambda x: jnp.sin(x + 1) + (x + 1)) == 3 * matrix  # the sum is alive while its sine is added
    # A loop holds what it has stacked, and one step's values.
    assert peak(lambda x: jax.lax.map(lambda row: row + 1, x)) == matrix + 4 * 8


def test_where_platforms_differ_the_cpu_is_counted():
    def both(x):
        return jax.lax.platform_dependent(x, tpu=lambda a: a @ a @ a, cpu=lambda a: a @ a, default=jnp.sin)

    def neither(x):
        return jax.lax.platform_dependent(x, tpu=lambda a: a @ a @ a, default=lambda a: jnp.sin(a) @ a)

    assert macs(both) == macs(neither) == 64
    assert (peak(both), peak(neither)) == (4 * 64 + 4, 2 * 4 * 64 + 4)  # and the platform's number


def small_unet(**fields):
    return unet.Model(
        channels=8,
        channel_mult=(1,),
        num_res_blocks=1,
        depth=(1,),
        num_heads=2,
        context_width=6,
        num_groups=4,
        **fields,
    )


@pytest.mark.slow
def test_costs_scale_with_the_batch_and_ignore_how_they_are_computed():
    model = small_unet()
    one, two = (costs.cost(model, model.inputs(batch, 8)) for batch in (1, 2))
    assert two.macs == 2 * one.macs
    assert two.params == one.params
    other = small_unet(remat=True, attention_backend='chunked')
    again = costs.cost(other, other.inputs(1, 8))
    assert [(row.path, row.params, row.macs) for row in again.layers] == [
        (row.path, row.params, row.macs) for row in one.layers
    ]


def test_attention_is_counted_in_its_own_layer():
    model = small_unet()
    rows = {row.path: row for row in costs.cost(model, model.inputs(1, 8)).layers}
    block = 'down_0_attn_0/block_0'
    assert rows[f'{block}/attn1'].macs == 2 * 64 * 64 * 8
    assert rows[f'{block}/attn2'].macs == 2 * 64 * 77 * 8


def test_report_and_table_hold_the_figures():
    cost = costs.cost(Whole(), INPUTS)
    report = costs.report(cost, 1)
    assert report['flops'] == 2 * sum(MACS.values())
    assert report['layers'][0] == dict(path='conv', output=[(2, 3, 3, 8)], params=224, macs=MACS['conv'])
    lines = costs.table(cost, 1).splitlines()
    assert lines[1].split() == ['conv', '2x3x3x8', '224', '0.0000']
    assert lines[-2].split()[:2] == ['total', f'{sum(PARAMS.values()):,}']
