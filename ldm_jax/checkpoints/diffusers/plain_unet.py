"""UNet2DModel: the config.json of a U-Net without context, whose attention is plain self-attention.

`attention_head_dim` is how wide a head is here; UNet2DConditionModel has another use for the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.checkpoints.diffusers import unets
from ldm_jax.checkpoints.diffusers.fields import Fields, Spec, mirrored, multipliers, spec, unsupported
from ldm_jax.models import unet

BLOCKS = {
    'DownBlock2D': 'UpBlock2D',
    'AttnDownBlock2D': 'AttnUpBlock2D',
    'ResnetDownsampleBlock2D': 'ResnetUpsampleBlock2D',
}
DEFAULTS = dict(
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


def read(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of a UNet2DModel.

    Raises ValueError for a setting that ldm_jax's U-Net does not have, naming it.
    """
    fields = Fields(config, where, DEFAULTS)
    channels, mult = multipliers(fields)
    blocks = mirrored(fields, BLOCKS)
    unets.check_common(fields, channels)
    fields.only('mid_block_type', 'UNetMidBlock2D')
    fields.only('class_embed_type', None)

    # Only blocks with attention read downsample_type; of the others, the kind says how they resample.
    how = {
        'AttnDownBlock2D': fields('downsample_type'),
        'DownBlock2D': 'conv',
        'ResnetDownsampleBlock2D': 'resnet',
    }
    resamples = {how[kind] for kind in blocks[:-1]}
    if fields('upsample_type') != fields('downsample_type'):
        raise fields.error(
            'upsample_type',
            fields('upsample_type'),
            f'it must be downsample_type, {fields("downsample_type")!r}',
        )
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
    single = config.get('attention_head_dim', 0) is None
    width = fields.only('attention_head_dim', None) if single else fields('attention_head_dim')
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
    fields.finish(unets.INERT)
    return fields.built('models', found, unets.BUILT_OF)


def write(model: unet.Model, sample_size: int | None) -> dict[str, Any]:
    """The config.json of a U-Net without context; sample_size is the side of the latents.

    Raises:
        ValueError: diffusers has no such U-Net; the message names the field.
    """
    if model.vector_width is not None:
        raise unsupported('unet.vector_width', model.vector_width, 'UNet2DModel takes no vector')
    for field, only in (('depth_up', ()), ('mid_res_blocks', 2), ('guidance_width', None)):
        if getattr(model, field) != only:
            raise unsupported(f'unet.{field}', getattr(model, field), 'UNet2DModel has no such thing')
    features = [model.channels * mult for mult in model.channel_mult]
    attended = {f for f, depth in zip(features, model.deepest, strict=True) if depth}
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
    # Blocks without attention come in a kind of their own to change the resolution by residual blocks.
    plain = ['ResnetDownsampleBlock2D' if model.resblock_updown else 'DownBlock2D'] * (len(model.depth) - 1)
    kinds = zip(model.deepest, [*plain, 'DownBlock2D'], strict=True)
    blocks = ['AttnDownBlock2D' if depth else kind for depth, kind in kinds]
    return unets.shared('UNet2DModel', model, sample_size) | dict(
        add_attention=bool(model.mid_depth),
        attention_head_dim=width,
        attn_norm_num_groups=model.num_groups,
        downsample_type='resnet' if model.resblock_updown else 'conv',
        upsample_type='resnet' if model.resblock_updown else 'conv',
        **unets.blocks(BLOCKS, blocks),
    )
