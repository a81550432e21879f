"""The U-Net's config.json in diffusers: UNet2DConditionModel where it reads a context, UNet2DModel otherwise.

`attention_head_dim` means two things: how many heads an attention has in UNet2DConditionModel, how wide a head is
in UNet2DModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.checkpoints.diffusers.fields import (
    Fields,
    Spec,
    header,
    mirrored,
    multipliers,
    spec,
    unsupported,
)
from ldm_jax.models import unet

CONDITIONAL_BLOCKS = {'DownBlock2D': 'UpBlock2D', 'CrossAttnDownBlock2D': 'CrossAttnUpBlock2D'}
PLAIN_BLOCKS = {
    'DownBlock2D': 'UpBlock2D',
    'AttnDownBlock2D': 'AttnUpBlock2D',
    'ResnetDownsampleBlock2D': 'ResnetUpsampleBlock2D',
}
CONDITIONAL_DEFAULTS = dict(
    in_channels=4,
    out_channels=4,
    down_block_types=['CrossAttnDownBlock2D'] * 3 + ['DownBlock2D'],
    up_block_types=['UpBlock2D'] + ['CrossAttnUpBlock2D'] * 3,
    only_cross_attention=False,
    block_out_channels=[320, 640, 1280, 1280],
    layers_per_block=2,
    norm_num_groups=32,
    cross_attention_dim=1280,
    transformer_layers_per_block=1,
    reverse_transformer_layers_per_block=None,
    attention_head_dim=8,
    class_embed_type=None,
    addition_embed_type=None,
    num_class_embeds=None,
    projection_class_embeddings_input_dim=None,
    time_embedding_dim=None,
)
PLAIN_DEFAULTS = dict(
    in_channels=3,
    out_channels=3,
    down_block_types=['DownBlock2D'] + ['AttnDownBlock2D'] * 3,
    up_block_types=['AttnUpBlock2D'] * 3 + ['UpBlock2D'],
    block_out_channels=[224, 448, 672, 896],
    layers_per_block=2,
    downsample_type='conv',
    upsample_type='conv',
    attention_head_dim=8,
    norm_num_groups=32,
    attn_norm_num_groups=None,
    add_attention=True,
    num_class_embeds=None,
    time_embedding_dim=None,
)
# Sizes to sample at, dropout and precision change no parameter and no output; the width of the sinusoids of
# SDXL's sizes follows from that of the vector.
INERT = (
    'sample_size',
    'dropout',
    'upcast_attention',
    'addition_embed_type_num_heads',
    'addition_time_embed_dim',
    'num_train_timesteps',
    'use_linear_projection',  # told by the number of axes of proj_in.weight
)


def read_conditional(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of a UNet2DConditionModel.

    Raises ValueError for a setting that ldm_jax's U-Net does not have, naming it.
    """
    fields = Fields(config, where, CONDITIONAL_DEFAULTS)
    channels, mult = multipliers(fields)
    blocks, levels = mirrored(fields, CONDITIONAL_BLOCKS), len(mult)
    layers = fields.levels('transformer_layers_per_block', levels)
    if any(not isinstance(depth, int) for depth in layers):
        raise fields.error('transformer_layers_per_block', layers, 'each level must have one number')
    reverse = fields('reverse_transformer_layers_per_block')
    if reverse is not None and list(reverse) != layers[::-1]:
        raise fields.error(
            'reverse_transformer_layers_per_block', reverse, 'the way up must mirror the way down'
        )
    depth = [n if kind.startswith('Cross') else 0 for n, kind in zip(layers, blocks, strict=True)]

    context = set(fields.levels('cross_attention_dim', levels))
    if len(context) > 1:
        raise fields.error('cross_attention_dim', config['cross_attention_dim'], 'all levels must share one')
    _common(fields, channels)
    fields.only('mid_block_type', 'UNetMidBlock2DCrossAttn')
    cross_only = fields('only_cross_attention')
    if fields.only('mid_block_only_cross_attention', None, False) is None and cross_only is True:
        raise fields.error(
            'only_cross_attention', True, 'that of the middle block must be false; give a list for the levels'
        )
    for key, value in dict(
        encoder_hid_dim=None,
        encoder_hid_dim_type=None,
        num_attention_heads=None,
        dual_cross_attention=False,
        resnet_skip_time_act=False,
        resnet_out_scale_factor=1.0,
        time_embedding_act_fn=None,
        timestep_post_act=None,
        time_cond_proj_dim=None,
        conv_in_kernel=3,
        conv_out_kernel=3,
        attention_type='default',
        class_embeddings_concat=False,
        cross_attention_norm=None,
    ).items():
        fields.only(key, value)
    only = fields.levels('only_cross_attention', levels)
    found = spec(
        'unet',
        in_channels=fields('in_channels'),
        out_channels=fields('out_channels'),
        channels=channels,
        channel_mult=mult,
        num_res_blocks=_same(fields, 'layers_per_block', levels),
        depth=depth,
        mid_depth=layers[-1],
        context_width=context.pop(),
        vector_width=_vector_width(fields),
        num_classes=fields('num_class_embeds'),
        cross_attention_only=only if any(only) else [],
        scale_shift=fields.only('resnet_time_scale_shift', 'default', 'scale_shift') == 'scale_shift',
        num_groups=fields('norm_num_groups'),
        **_heads(fields, [channels * m for m in mult], depth),
    )
    fields.finish(INERT)
    return found


def read_plain(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of a UNet2DModel.

    Raises ValueError for a setting that ldm_jax's U-Net does not have, naming it.
    """
    fields = Fields(config, where, PLAIN_DEFAULTS)
    channels, mult = multipliers(fields)
    blocks = mirrored(fields, PLAIN_BLOCKS)
    _common(fields, channels)
    fields.only('mid_block_type', 'UNetMidBlock2D')
    fields.only('class_embed_type', None)

    # Only blocks with attention read downsample_type; of the others, the kind says how they resample.
    how = {
        'AttnDownBlock2D': fields('downsample_type'),
        'DownBlock2D': 'conv',
        'ResnetDownsampleBlock2D': 'resnet',
    }
    resamples = {how[kind] for kind in blocks[:-1]}
    fields.only('upsample_type', fields('downsample_type'))
    if not resamples <= {'conv', 'resnet'} or len(resamples) > 1 or blocks[-1].startswith('Resnet'):
        raise fields.error(
            'down_block_types',
            blocks,
            f'with downsample_type {fields("downsample_type")!r}, all levels but the last must change the '
            "resolution alike, by 'conv' or by 'resnet'",
        )
    scale_shift = fields.only('resnet_time_scale_shift', 'default', 'scale_shift') == 'scale_shift'
    groups, attended = fields('norm_num_groups'), fields('add_attention')
    attn_groups = fields('attn_norm_num_groups')
    if attended and attn_groups != groups and (scale_shift or attn_groups is not None):
        raise fields.error('attn_norm_num_groups', attn_groups, f'it must be norm_num_groups, {groups}')
    width = fields('attention_head_dim')
    found = spec(
        'unet',
        in_channels=fields('in_channels'),
        out_channels=fields('out_channels'),
        channels=channels,
        channel_mult=mult,
        num_res_blocks=fields('layers_per_block'),
        depth=[int(kind.startswith('Attn')) for kind in blocks],
        mid_depth=int(bool(attended)),
        num_classes=fields('num_class_embeds'),
        scale_shift=scale_shift,
        resblock_updown='resnet' in resamples,
        num_groups=groups,
        **(dict(num_heads=1) if width is None else dict(head_width=width)),
    )
    fields.finish(INERT)
    return found


def write(
    model: unet.Model, sample_size: int | None, class_projection: bool = False, sizes: int = 256
) -> dict[str, Any]:
    """The config.json of a U-Net, of the class that can express it.

    Args:
        model: the U-Net.
        sample_size: side of the latents.
        class_projection: Cond.vector is unCLIP's image embedding, not SDXL's text and sizes.
        sizes: width of the sinusoids of each of SDXL's sizes.

    Raises:
        ValueError: diffusers has no such U-Net; the message names the field.
    """
    if model.channel_mult[0] != 1:
        raise unsupported('unet.channel_mult', model.channel_mult, 'the first level must have factor 1')
    features = [model.channels * m for m in model.channel_mult]
    shared = dict(
        act_fn='silu',
        block_out_channels=features,
        center_input_sample=False,
        downsample_padding=1,
        flip_sin_to_cos=True,
        freq_shift=0,
        in_channels=model.in_channels,
        layers_per_block=model.num_res_blocks,
        mid_block_scale_factor=1,
        norm_eps=1e-5,
        norm_num_groups=model.num_groups,
        num_class_embeds=model.num_classes,
        out_channels=model.out_channels,
        resnet_time_scale_shift='scale_shift' if model.scale_shift else 'default',
        sample_size=sample_size,
    )
    if model.context_width is None:
        return header('UNet2DModel') | shared | _plain(model, features)
    return header('UNet2DConditionModel') | shared | _conditional(model, features, class_projection, sizes)


def linear_projection(model: unet.Model) -> bool:
    """Whether the published models of this kind project by matrices around their transformers.

    Those of Stability do (heads of width 64, or a label): Stable Diffusion 2, SDXL, the upscaler. Those of CompVis
    have 1x1 convolutions. The numbers are the same.
    """
    return model.head_width == 64 or model.num_classes is not None or model.vector_width is not None


def _conditional(
    model: unet.Model, features: list[int], class_projection: bool, sizes: int
) -> dict[str, Any]:
    if model.resblock_updown:
        raise unsupported(
            'unet.resblock_updown', True, 'UNet2DConditionModel changes the resolution by convolutions'
        )
    if model.mid_depth == 0:
        raise unsupported('unet.mid_depth', 0, 'UNet2DConditionModel has attention in the middle')
    if model.depth[-1] not in (0, model.mid_depth):
        raise unsupported(
            'unet.mid_depth', model.mid_depth, f'it shares the depth of the last level, {model.depth[-1]}'
        )
    depths = {*model.depth, model.mid_depth} - {0}
    layers = [depth or 1 for depth in model.depth[:-1]] + [model.mid_depth]
    if model.num_heads is not None:
        heads: int | list[int] = model.num_heads
    else:  # those of levels without attention are never used, but must be there
        heads = [max(1, f // model.head_width) for f in features]
    config = dict(
        attention_head_dim=heads,
        cross_attention_dim=model.context_width,
        only_cross_attention=list(model.cross_attention_only) or False,
        transformer_layers_per_block=depths.pop() if len(depths) == 1 else layers,
        use_linear_projection=linear_projection(model),
        **_block_types(['CrossAttnDownBlock2D' if d else 'DownBlock2D' for d in model.depth]),
    )
    if model.vector_width is None:
        return config
    config['projection_class_embeddings_input_dim'] = model.vector_width
    if class_projection:
        if model.num_classes is not None:
            raise unsupported(
                'unet.num_classes', model.num_classes, 'the class embedding is the vector already'
            )
        return config | dict(class_embed_type='projection')
    return config | dict(addition_embed_type='text_time', addition_time_embed_dim=sizes)


def _plain(model: unet.Model, features: list[int]) -> dict[str, Any]:
    if model.vector_width is not None:
        raise unsupported('unet.vector_width', model.vector_width, 'UNet2DModel takes no vector')
    attended = {f for f, depth in zip(features, model.depth, strict=True) if depth}
    attended |= {features[-1]} if model.mid_depth else set()
    width = model.head_width
    if width is None and model.num_heads != 1:
        if len(attended) > 1:
            raise unsupported(
                'unet.num_heads',
                model.num_heads,
                'UNet2DModel has heads of one width (head_width), and the attention here is over '
                f'{sorted(attended)} channels',
            )
        width = next(iter(attended), model.num_heads) // model.num_heads
    blocks = ['AttnDownBlock2D' if depth else 'DownBlock2D' for depth in model.depth]
    if model.resblock_updown:
        blocks[:-1] = [kind.replace('DownBlock2D', 'ResnetDownsampleBlock2D') if kind == 'DownBlock2D' else kind
                       for kind in blocks[:-1]]  # fmt: skip
    return dict(
        add_attention=bool(model.mid_depth),
        attention_head_dim=width,
        attn_norm_num_groups=model.num_groups,
        downsample_type='resnet' if model.resblock_updown else 'conv',
        upsample_type='resnet' if model.resblock_updown else 'conv',
        **_block_types(blocks),
    )


def _block_types(down: list[str]) -> dict[str, list[str]]:
    kinds = CONDITIONAL_BLOCKS | PLAIN_BLOCKS
    return dict(down_block_types=down, up_block_types=[kinds[kind] for kind in reversed(down)])


def _common(fields: Fields, channels: int) -> None:
    """Checks what must be as it is in latent diffusion, in both classes."""
    for key, supported in dict(
        center_input_sample=(False,),
        flip_sin_to_cos=(True,),
        freq_shift=(0,),
        downsample_padding=(1,),
        mid_block_scale_factor=(1,),
        act_fn=('silu', 'swish'),
        norm_eps=(1e-5,),
        time_embedding_type=('positional',),
    ).items():
        fields.only(key, *supported)
    fields.only('time_embedding_dim', None, 4 * channels)


def _same(fields: Fields, key: str, levels: int) -> int:
    values = fields.levels(key, levels)
    if len(set(values)) > 1:
        raise fields.error(key, values, 'all levels must share one')
    return values[0]


def _heads(fields: Fields, features: list[int], depth: list[int]) -> dict[str, int]:
    """num_heads or head_width of attentions whose numbers of heads are in attention_head_dim."""
    value = fields('attention_head_dim')
    if isinstance(value, int):
        return dict(num_heads=value)
    heads = fields.levels('attention_head_dim', len(features))
    # The middle block has the heads of the last level.
    attended = [level for level in range(len(features)) if depth[level]] + [len(features) - 1]
    widths = {features[level] / heads[level] for level in attended}
    if len(widths) == 1 and next(iter(widths)).is_integer():
        return dict(head_width=int(widths.pop()))
    counts = {heads[level] for level in attended}
    if len(counts) == 1:
        return dict(num_heads=counts.pop())
    raise fields.error(
        'attention_head_dim',
        value,
        f'these numbers of heads of {features} channels must be all one, or make heads of one width',
    )


def _vector_width(fields: Fields) -> int | None:
    """Width of the vector that is projected and added to the time: of unCLIP's class or of SDXL's addition."""
    by_class = fields.only('class_embed_type', None, 'projection') is not None
    by_addition = fields.only('addition_embed_type', None, 'text_time') is not None
    width = fields('projection_class_embeddings_input_dim')
    if by_class and by_addition:
        raise fields.error('addition_embed_type', 'text_time', 'there is a class_embed_type already')
    if not by_class and not by_addition:
        return None
    if width is None:
        raise fields.error('projection_class_embeddings_input_dim', None, 'the embedding needs its width')
    return width
