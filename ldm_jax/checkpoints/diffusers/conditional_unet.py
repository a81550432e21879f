"""UNet2DConditionModel: the config.json of a U-Net that reads a context.

`attention_head_dim` is how many heads an attention has here, whatever its name says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.checkpoints.diffusers import unets
from ldm_jax.checkpoints.diffusers.fields import Fields, Spec, mirrored, multipliers, spec, unsupported
from ldm_jax.models import unet

BLOCKS = {'DownBlock2D': 'UpBlock2D', 'CrossAttnDownBlock2D': 'CrossAttnUpBlock2D'}
DEFAULTS = dict(
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


def read(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of a UNet2DConditionModel.

    Raises ValueError for a setting that ldm_jax's U-Net does not have, naming it.
    """
    fields = Fields(config, where, DEFAULTS)
    channels, mult = multipliers(fields)
    blocks, levels = mirrored(fields, BLOCKS), len(mult)
    layers = fields.levels('transformer_layers_per_block', levels)
    reverse = fields('reverse_transformer_layers_per_block')
    if reverse is not None and list(reverse) != layers[::-1]:
        raise fields.error(
            'reverse_transformer_layers_per_block', reverse, 'the way up must mirror the way down'
        )
    depth = [n if kind.startswith('Cross') else 0 for n, kind in zip(layers, blocks, strict=True)]

    context = set(fields.levels('cross_attention_dim', levels))
    if len(context) > 1:
        raise fields.error('cross_attention_dim', config['cross_attention_dim'], 'all levels must share one')
    unets.check_common(fields, channels)
    fields.only('mid_block_type', 'UNetMidBlock2DCrossAttn')
    cross_only = config.get('only_cross_attention')
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
    fields.finish(unets.INERT)
    return fields.built('models', found, unets.BUILT_OF)


def write(
    model: unet.Model, sample_size: int | None, class_projection: bool = False, sizes: int = 256
) -> dict[str, Any]:
    """The config.json of a U-Net with context.

    Args:
        model: the U-Net.
        sample_size: side of the latents.
        class_projection: Cond.vector is unCLIP's image embedding, not SDXL's text and sizes.
        sizes: width of the sinusoids of each of SDXL's sizes.

    Raises:
        ValueError: diffusers has no such U-Net; the message names the field.
    """
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
        heads = [max(1, model.channels * mult // model.head_width) for mult in model.channel_mult]
    config = unets.shared('UNet2DConditionModel', model, sample_size) | dict(
        attention_head_dim=heads,
        cross_attention_dim=model.context_width,
        only_cross_attention=list(model.cross_attention_only) or False,
        transformer_layers_per_block=depths.pop() if len(depths) == 1 else layers,
        use_linear_projection=linear_projection(model),
        **unets.blocks(BLOCKS, ['CrossAttnDownBlock2D' if d else 'DownBlock2D' for d in model.depth]),
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


def linear_projection(model: unet.Model) -> bool:
    """Whether the published models of this kind project by matrices around their transformers.

    Those of Stability do (heads of width 64, or a label): Stable Diffusion 2, SDXL, the upscaler. Those of CompVis
    have 1x1 convolutions. The numbers are the same.
    """
    return model.head_width == 64 or model.num_classes is not None or model.vector_width is not None


def _same(fields: Fields, key: str, levels: int) -> int:
    values = fields.levels(key, levels)
    if len(set(values)) > 1:
        raise fields.error(key, values, 'all levels must share one')
    return values[0]


def _heads(fields: Fields, features: list[int], depth: list[int]) -> dict[str, int]:
    """num_heads or head_width of attentions whose numbers of heads are in attention_head_dim."""
    heads = fields.levels('attention_head_dim', len(features))
    value = fields.config.get('attention_head_dim', DEFAULTS['attention_head_dim'])
    if isinstance(value, int):
        return dict(num_heads=value)
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
