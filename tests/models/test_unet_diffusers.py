"""The U-Net beside diffusers': every family of Stable Diffusion, perturbed attention, convolutions that go round."""

import jax
import numpy as np
import pytest

from ldm_jax.checkpoints.layouts import diffusers_unet
from ldm_jax.models import unet
from tests import oracles
from tests.models.unets import cases, draw, error

torch = pytest.importorskip('torch')
diffusers = pytest.importorskip('diffusers')

TINY = dict(channels=16, channel_mult=(1, 2), num_res_blocks=1, depth=(1, 0), num_groups=4)
POOLED, SINUSOIDS = 8, 4  # SDXL's vector: a pooled text embedding, then so many sinusoids of each size

# family -> fields of the model, settings of its file's layout, fields that its diffusers config has besides.
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
    # A middle of one residual block, other depths on the way up: SSD-1B. Vega and KOALA differ in numbers alone.
    'ssd_1b': (
        dict(
            TINY,
            num_res_blocks=2,
            channel_mult=(1, 2, 2),
            depth=(0, 2, (1, 2)),
            depth_up=(0, (2, 1, 1), (1, 2, 3)),
            mid_depth=0,
            mid_res_blocks=1,
            head_width=8,
            context_width=12,
            vector_width=POOLED + 6 * SINUSOIDS,
        ),
        dict(linear_projection=True),
        dict(
            addition_embed_type='text_time',
            addition_time_embed_dim=SINUSOIDS,
            projection_class_embeddings_input_dim=POOLED + 6 * SINUSOIDS,
            transformer_layers_per_block=(1, (2, 2), (1, 2)),
            reverse_transformer_layers_per_block=((1, 2, 3), (2, 1, 1), 1),
            mid_block_type='UNetMidBlock2D',
        ),
    ),
    'bk_sdm_tiny': (
        dict(
            TINY,
            channel_mult=(1, 2, 2),
            depth=(1, 1, 1),
            mid_depth=0,
            mid_res_blocks=0,
            num_heads=4,
            context_width=12,
        ),
        dict(),
        dict(mid_block_type=None),
    ),
    'lcm': (
        dict(TINY, num_heads=4, context_width=12, guidance_width=6),
        dict(),
        dict(time_cond_proj_dim=6),
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


class Sinusoids(torch.nn.Module):
    """The embedding of time in float64; diffusers' own is float32 whatever the dtype."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, t):
        half = self.features // 2
        angles = t.double()[:, None] * 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


def guidance_embedding(scale, width, dtype):
    """LCM's embedding: diffusers' own, which is float32 whatever the dtype, or the same in float64."""
    if dtype == torch.float32:
        own = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
        return own(None, torch.tensor(scale - 1, dtype=dtype), width, dtype)
    half = width // 2
    powers = torch.arange(half, dtype=dtype) / (half - 1)
    angles = 1000 * torch.tensor(scale - 1)[:, None] * 10000.0**-powers
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def diffusers_net(model, settings):
    """The diffusers U-Net that a model's fields describe, with random weights."""
    widths = tuple(model.channels * mult for mult in model.channel_mult)
    attention = 'CrossAttn' if model.context_width else 'Attn'
    kinds = [attention if depth else '' for depth in model.deepest]
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
    if cond.guidance is not None:
        extra['timestep_cond'] = guidance_embedding(cond.guidance, net.config.time_cond_proj_dim, dtype)
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


@pytest.mark.parametrize(('family', 'dtype', 'tolerance'), cases(FAMILIES, fast=('sdxl',)))
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
    oracles.assert_come_back(layout, params, state)

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
def test_going_round_is_that_of_torch_and_moves_with_the_image(wrap):
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
