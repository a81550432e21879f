"""The U-Net: parity with diffusers and with the original code, its errors, precision, remat, logical axes.

What each fixture of the original code holds is said in fixtures/README_unet.md.
"""

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.checkpoints import transfer
from ldm_jax.checkpoints.layouts import compvis_unet, diffusers_unet
from ldm_jax.models import layers, unet
from ldm_jax.types import Cond
from tests import oracles

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')

FIXTURES = Path(__file__).parent / 'fixtures'

TINY = dict(channels=16, channel_mult=(1, 2), num_res_blocks=1, depth=(1, 0), num_groups=4)
POOLED, SINUSOIDS = 8, 4  # SDXL's vector: a pooled text embedding, then so many sinusoids of each size

# family -> fields of the model, what its file's layout is told, what its diffusers config has besides.
FAMILIES = {
    'sd1': (
        dict(TINY, num_heads=4, context_width=12),
        dict(),
        dict(),
    ),
    'sd2': (
        dict(TINY, channel_mult=(1, 2, 2), num_res_blocks=2, depth=(1, 1, 0), head_width=8, context_width=12),
        dict(linear_projection=True),
        dict(),
    ),
    'inpainting': (dict(TINY, in_channels=9, num_heads=4, context_width=12), dict(), dict()),
    'pix2pix': (dict(TINY, in_channels=8, num_heads=4, context_width=12), dict(), dict()),
    'depth': (
        dict(TINY, in_channels=5, head_width=8, context_width=12),
        dict(linear_projection=True),
        dict(),
    ),
    'unclip': (
        dict(TINY, head_width=8, context_width=12, vector_width=20),
        dict(linear_projection=True, vector_key='class_embedding'),
        dict(class_embed_type='projection', projection_class_embeddings_input_dim=20),
    ),
    'x4_upscaler': (
        dict(
            TINY,
            in_channels=7,
            depth=(1, 1),
            num_heads=4,
            context_width=12,
            num_classes=10,
            cross_attention_only=(True, False),
        ),
        dict(linear_projection=True),
        dict(num_class_embeds=10, only_cross_attention=(True, False)),
    ),
    'sdxl': (
        dict(
            TINY,
            depth=(1, 2),
            mid_depth=2,
            head_width=8,
            context_width=12,
            vector_width=POOLED + 6 * SINUSOIDS,
        ),
        dict(linear_projection=True),
        dict(
            addition_embed_type='text_time',
            addition_time_embed_dim=SINUSOIDS,
            projection_class_embeddings_input_dim=POOLED + 6 * SINUSOIDS,
            transformer_layers_per_block=(1, 2),
        ),
    ),
    'sdxl_refiner': (
        dict(
            TINY,
            channel_mult=(1, 2, 2),
            depth=(0, 2, 0),
            mid_depth=2,
            head_width=8,
            context_width=12,
            vector_width=POOLED + 5 * SINUSOIDS,
        ),
        dict(linear_projection=True),
        dict(
            addition_embed_type='text_time',
            addition_time_embed_dim=SINUSOIDS,
            projection_class_embeddings_input_dim=POOLED + 5 * SINUSOIDS,
            transformer_layers_per_block=2,
        ),
    ),
    'unconditional': (
        dict(TINY, in_channels=3, out_channels=3, channel_mult=(1, 2, 2), depth=(0, 1, 1), head_width=8),
        dict(),
        dict(),
    ),
    'scale_shift_resblock_updown': (
        dict(TINY, depth=(1, 1), head_width=8, scale_shift=True, resblock_updown=True),
        dict(),
        dict(
            resnet_time_scale_shift='scale_shift',
            downsample_type='resnet',
            upsample_type='resnet',
            attn_norm_num_groups=4,
        ),
    ),
}

ORIGINAL = dict(channels=32, channel_mult=(1, 2), num_res_blocks=1)
RGB = dict(ORIGINAL, in_channels=3, out_channels=3)
# fixture -> fields of the model, whether transformers project by linear layers.
ORIGINALS = {
    'head_width': (dict(RGB, channel_mult=(1, 2, 3), depth=(0, 1, 1), head_width=16), False),
    'scale_shift': (
        dict(ORIGINAL, depth=(1, 1), num_heads=4, scale_shift=True, resblock_updown=True),
        False,
    ),
    'resblock_updown': (
        dict(RGB, in_channels=7, num_res_blocks=2, depth=(0, 1), num_heads=8, resblock_updown=True),
        False,
    ),
    'class_token': (dict(RGB, depth=(0, 1), num_heads=1, context_width=12), False),
    'depth_3': (dict(RGB, depth=(0, 3), mid_depth=3, head_width=16, context_width=12), False),
    'middle_only': (
        dict(RGB, in_channels=6, num_res_blocks=2, channel_mult=(1, 2, 4), depth=(0, 0, 0), num_heads=8),
        False,
    ),
    'text': (
        dict(ORIGINAL, channel_mult=(1, 2, 2), depth=(1, 1, 0), num_heads=4, context_width=12),
        False,
    ),
    'upscaler': (
        dict(
            ORIGINAL,
            in_channels=7,
            channel_mult=(1, 2, 2),
            depth=(0, 1, 1),
            num_heads=4,
            context_width=12,
            num_classes=10,
            cross_attention_only=(True, True, False),
        ),
        True,
    ),
    'unclip': (dict(ORIGINAL, depth=(1, 0), head_width=16, context_width=12, vector_width=20), True),
    'levels': (
        dict(
            ORIGINAL,
            channel_mult=(1, 2, 2),
            depth=(0, 1, 2),
            mid_depth=2,
            head_width=16,
            context_width=12,
            vector_width=20,
        ),
        True,
    ),
}


def cases(names, fast):
    """Each name in float64 and float32; what is not a fast name in float64 is slow, by its compilation."""
    return [
        pytest.param(
            name,
            dtype,
            tolerance,
            marks=() if name in fast and dtype == 'float64' else pytest.mark.slow,
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
    """One evaluation, compiled quickly."""

    def run(params, x, t, cond):
        return model.apply({'params': params}, x, t, cond)

    return jax.jit(run, compiler_options=oracles.QUICK)(params, x, t, cond)


def error(model, params, inputs, expected, dtype):
    """Of the output in a dtype, over the expected output's scale."""
    with oracles.float64() if dtype == 'float64' else contextlib.nullcontext():
        params, inputs = trees.cast((params, inputs), dtype)
        output = evaluate(model.clone(dtype=jnp.dtype(dtype)), params, *inputs)
    assert output.dtype == dtype
    return oracles.relative_error(output, expected)


class Sinusoids(torch.nn.Module):
    """The embedding of time in float64; diffusers' own is float32 whatever the dtype."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, t):
        half = self.features // 2
        angles = t.double()[:, None] * 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


def diffusers_net(model, settings):
    """The diffusers U-Net that a model's fields describe, with random weights."""
    widths = tuple(model.channels * mult for mult in model.channel_mult)
    attention = 'CrossAttn' if model.context_width else 'Attn'
    kinds = [attention if depth else '' for depth in model.depth]
    config = dict(
        in_channels=model.in_channels,
        out_channels=model.out_channels,
        block_out_channels=widths,
        down_block_types=tuple(f'{kind}DownBlock2D' for kind in kinds),
        up_block_types=tuple(f'{kind}UpBlock2D' for kind in reversed(kinds)),
        layers_per_block=model.num_res_blocks,
        norm_num_groups=model.num_groups,
        **settings,
    )
    if model.context_width:
        # What diffusers calls attention_head_dim here is the number of heads.
        heads = tuple(model.heads(width) for width in widths)
        net = diffusers.UNet2DConditionModel(
            **config, attention_head_dim=heads, cross_attention_dim=model.context_width
        )
    else:
        net = diffusers.UNet2DModel(**config, attention_head_dim=model.head_width)
    oracles.randomize(net)
    return net.eval()


def run_diffusers(net, x, t, cond, sizes, dtype):
    """A diffusers U-Net's output [B, h, w, C] for our inputs; sizes [B, S] are those within cond.vector."""
    dtype = getattr(torch, dtype)
    net = net.to(dtype)
    if dtype == torch.float64:
        net.time_proj = Sinusoids(net.config.block_out_channels[0])
        net.add_time_proj = Sinusoids(SINUSOIDS)
    x = x if cond.concat is None else np.concatenate([x, cond.concat], axis=-1)
    extra = {}
    if cond.context is not None:
        extra['encoder_hidden_states'] = torch.tensor(cond.context, dtype=dtype)
    if cond.label is not None:
        extra['class_labels'] = torch.tensor(cond.label)
    if cond.vector is not None and sizes is None:
        extra['class_labels'] = torch.tensor(cond.vector, dtype=dtype)
    if sizes is not None:
        pooled = torch.tensor(cond.vector[:, :POOLED], dtype=dtype)
        extra['added_cond_kwargs'] = dict(text_embeds=pooled, time_ids=torch.tensor(sizes))
    with torch.no_grad():
        output = net(torch.tensor(x.transpose(0, 3, 1, 2), dtype=dtype), torch.tensor(t), **extra).sample
    return output.numpy().transpose(0, 2, 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize(('family', 'dtype', 'tolerance'), cases(FAMILIES, ('sd1', 'x4_upscaler', 'sdxl')))
def test_parity_with_diffusers(family, dtype, tolerance):
    fields, layout_settings, settings = FAMILIES[family]
    model = unet.Model(**fields)
    x, t, cond = draw(model)
    sizes = None
    if 'addition_embed_type' in settings:
        count = (model.vector_width - POOLED) // SINUSOIDS
        sizes = np.random.default_rng(1).uniform(0, 1024, (2, count))
        sinusoids = Sinusoids(SINUSOIDS)(torch.tensor(sizes).flatten()).reshape(2, -1).numpy()
        cond = cond.replace(vector=np.concatenate([cond.vector[:, :POOLED], sinusoids], axis=-1))
    linear = layout_settings.get('linear_projection', False)
    net = diffusers_net(model, settings | (dict(use_linear_projection=linear) if model.context_width else {}))
    layout = diffusers_unet.layout(model, **layout_settings)

    state = oracles.tensors(net)
    params = oracles.params_like(model, layout, state, size=model.downscale)
    exported = transfer.export_params(layout, params)
    assert exported.keys() == state.keys()
    assert all(np.array_equal(exported[key], state[key]) for key in state)

    expected = run_diffusers(net, x, t, cond, sizes, dtype)
    assert error(model, params, (x, t, cond), expected, dtype) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize(
    ('family', 'perturbed', 'theirs'),
    [
        ('sd1', ('mid',), ('mid_block',)),
        ('sd1', ('down_0_attn_0', 'up'), ('down_blocks.0.attentions.0', 'up_blocks')),
        ('unconditional', ('mid_attn', 'up_1'), ('mid_block', 'up_blocks.1')),
    ],
)
def test_perturbed_attention_is_that_of_diffusers(family, perturbed, theirs):
    from diffusers.models.attention_processor import Attention, PAGCFGIdentitySelfAttnProcessor2_0

    fields, layout_settings, settings = FAMILIES[family]
    model = unet.Model(**fields, perturbed=perturbed)
    x, t, cond = draw(model)
    x, cond = jax.tree.map(lambda a: np.concatenate([a, a[1:]]), (x, cond))  # uncond, cond, cond again
    net = diffusers_net(model, settings)
    for name, module in net.named_modules():
        itself = isinstance(module, Attention) and not module.is_cross_attention
        if itself and name.startswith(theirs):
            module.set_processor(PAGCFGIdentitySelfAttnProcessor2_0())
    layout = diffusers_unet.layout(model, **layout_settings)
    params = oracles.params_like(model, layout, oracles.tensors(net), size=model.downscale)

    expected = run_diffusers(net, x, np.append(t, t[1]), cond, None, 'float64')
    assert oracles.relative_error(expected[2], expected[1]) > 1e-2
    cond = cond.replace(perturbed=np.array([False, False, True]))
    assert error(model, params, (x, np.append(t, t[1]), cond), expected, 'float64') < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize('wrap', ['xy', 'x'])
def test_going_round_is_that_of_torch_and_moves_with_the_picture(wrap):
    fields, _, settings = FAMILIES['sd1']
    model = unet.Model(**fields, wrap=wrap)
    x, t, cond = draw(model)
    net = diffusers_net(model, settings)
    plain = run_diffusers(net, x, t, cond, None, 'float64')
    oracles.go_round(net, wrap)
    params = oracles.params_like(model, diffusers_unet.layout(model), oracles.tensors(net), size=2)
    expected = run_diffusers(net, x, t, cond, None, 'float64')
    assert oracles.relative_error(plain, expected) > 1e-2
    assert error(model, params, (x, t, cond), expected, 'float64') < 1e-9

    def moved(a):
        return np.roll(a, (2, 4) if wrap == 'xy' else (0, 4), axis=(1, 2))

    # By multiples of downscale, or the strides would start elsewhere.
    assert error(model, params, (moved(x), t, cond), moved(expected), 'float64') < 1e-9


def random_weights(shapes, seed):
    """The weights that the original code was run with: normal in the keys' order, scaled by fan-in."""
    generator = np.random.default_rng(seed)
    weights = {}
    for key in sorted(shapes):
        values = generator.standard_normal(shapes[key])
        if values.ndim == 1 and key.endswith('weight'):
            weights[key] = 1 + 0.2 * values
        else:
            weights[key] = values / np.sqrt(np.prod(values.shape[1:]) if values.ndim > 1 else 16)
    return weights


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'dtype', 'tolerance'), cases(ORIGINALS, ('scale_shift',)))
def test_parity_with_the_original_code(name, dtype, tolerance):
    fields, linear = ORIGINALS[name]
    model = unet.Model(**fields)
    fixture = np.load(FIXTURES / f'unet_{name}.npz')
    rows = (line.split() for line in bytes(fixture['keys']).decode().splitlines())
    state = random_weights({key: tuple(map(int, shape)) for key, *shape in rows}, int(fixture['seed']))
    cond = Cond(
        **{part: fixture[part] for part in ('context', 'concat', 'vector', 'label') if part in fixture}
    )

    layout = compvis_unet.layout(model, linear)
    params = oracles.params_like(model, layout, state, size=model.downscale)
    exported = transfer.export_params(layout, params)
    assert exported.keys() == state.keys()
    assert all(np.array_equal(exported[key], state[key]) for key in state)

    inputs = (fixture['x'], fixture['t'], cond)
    assert error(model, params, inputs, fixture['output'], dtype) < tolerance


# Everything below runs on one level: what it tests does not depend on how many there are.
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
    assert (
        blocks(True) == 5 + 4
    )  # residual blocks and attention: 1 each down, 2 and 1 in the middle, 2 each up


@pytest.mark.slow
@pytest.mark.parametrize('context_width', [6, None])
def test_remat_changes_neither_output_nor_gradients(context_width):
    model = SMALL.clone(context_width=context_width)
    params, inputs = fill(model), trees.cast(draw(model), jnp.float32)

    def loss_and_gradients(remat):
        def loss(params):
            return jnp.mean(model.clone(remat=remat).apply({'params': params}, *inputs) ** 2)

        loss, gradients = jax.jit(jax.value_and_grad(loss), compiler_options=oracles.QUICK)(params)
        return float(loss), trees.named(gradients)

    (loss, gradients), (loss_again, gradients_again) = loss_and_gradients(False), loss_and_gradients(True)
    assert loss_again == pytest.approx(loss, rel=1e-6)
    # Of the largest gradient: that of a key's bias is exactly 0, but for rounding.
    scale = max(np.abs(gradient).max() for gradient in gradients.values())
    for path, gradient in gradients.items():
        assert np.abs(gradients_again[path] - gradient).max() < 1e-5 * scale, path


@pytest.mark.parametrize(
    'fields', [dict(FAMILIES['unclip'][0], num_classes=10), FAMILIES['scale_shift_resblock_updown'][0]]
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
