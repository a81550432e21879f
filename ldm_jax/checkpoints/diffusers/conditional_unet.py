"""UNet2DConditionModel: the config.json of a U-Net that reads a context.

`attention_head_dim` is how many heads an attention has here, whatever its name says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax.checkpoints import unet_depths
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
    time_cond_proj_dim=None,
)
# mid_block_type -> residual blocks in the middle; without the second there is no attention.
MIDDLES = {'UNetMidBlock2DCrossAttn': 2, 'UNetMidBlock2D': 1, None: 0}


def read(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of a UNet2DConditionModel.

    Raises ValueError for a setting that ldm_jax's U-Net does not have, naming it.
    """
    fields = Fields(config, where, DEFAULTS)
    channels, mult = multipliers(fields)
    blocks, levels = mirrored(fields, BLOCKS), len(mult)
    num_res_blocks = _same(fields, 'layers_per_block', levels)
    attended = [kind.startswith('Cross') for kind in blocks]
    layers = _layers(fields, 'transformer_layers_per_block', attended, num_res_blocks)
    upward = [[each[0]] * (num_res_blocks + 1) for each in layers]
    if config.get('reverse_transformer_layers_per_block') is not None:
        reverse = _layers(fields, 'reverse_transformer_layers_per_block', attended[::-1], num_res_blocks + 1)
        upward = reverse[::-1]
    elif any(isinstance(each, list | tuple) for each in _listed(config)):
        raise fields.error(
            'transformer_layers_per_block',
            config['transformer_layers_per_block'],
            'with several numbers for a level there must be a reverse_transformer_layers_per_block',
        )
    middle = MIDDLES[fields.only('mid_block_type', *MIDDLES)]
    mid_depth = _mid_depth(fields) if middle == 2 else 0

    context = set(fields.levels('cross_attention_dim', levels))
    if len(context) > 1:
        raise fields.error('cross_attention_dim', config['cross_attention_dim'], 'all levels must share one')
    unets.check_common(fields, channels)
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
        num_res_blocks=num_res_blocks,
        **unet_depths.fields(layers, upward),
        mid_depth=mid_depth,
        mid_res_blocks=middle,
        context_width=context.pop(),
        vector_width=_vector_width(fields),
        num_classes=fields('num_class_embeds'),
        guidance_width=fields('time_cond_proj_dim'),
        cross_attention_only=only if any(only) else [],
        scale_shift=fields.only('resnet_time_scale_shift', 'default', 'scale_shift') == 'scale_shift',
        num_groups=fields('norm_num_groups'),
        **_heads(fields, [channels * m for m in mult], attended),
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
    if model.mid_depth == 0 and model.mid_res_blocks == 2:
        raise unsupported(
            'unet.mid_depth', 0, 'UNet2DConditionModel has attention between two residual blocks'
        )
    levels = range(len(model.channel_mult))
    for level in levels:
        if 0 in (depths := model.down_depths(level) + model.up_depths(level)) and any(depths):
            raise unsupported(
                'unet.depth',
                model.depth,
                'UNet2DConditionModel has attention behind all residual blocks of a level, or none',
            )
    lowest = {*model.down_depths(levels[-1]), model.mid_depth} - {0}
    if model.mid_depth and len(lowest) > 1:
        raise unsupported(
            'unet.mid_depth',
            model.mid_depth,
            f'it shares the depth of the last level, {model.depth[-1]}',
        )
    if model.num_heads is not None:
        heads: int | list[int] = model.num_heads
    else:  # those of levels without attention are never used, but must be there
        heads = [max(1, model.channels * mult // model.head_width) for mult in model.channel_mult]
    config = unets.shared('UNet2DConditionModel', model, sample_size) | dict(
        attention_head_dim=heads,
        cross_attention_dim=model.context_width,
        only_cross_attention=list(model.cross_attention_only) or False,
        mid_block_type=next(kind for kind, blocks in MIDDLES.items() if blocks == model.mid_res_blocks),
        time_cond_proj_dim=model.guidance_width,
        use_linear_projection=linear_projection(model),
        **_written_layers(model),
        **unets.blocks(BLOCKS, ['CrossAttnDownBlock2D' if d else 'DownBlock2D' for d in model.deepest]),
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


def _written_layers(model: unet.Model) -> dict[str, Any]:
    """transformer_layers_per_block, and what says the way up where it does not mirror the way down."""
    if model.depth_up:
        levels = range(len(model.channel_mult))
        down = [_nested(model.down_depths(level)) for level in levels]
        up = [_nested(model.up_depths(level)) for level in reversed(levels)]
        if model.mid_depth:
            down[-1] = model.mid_depth
        return dict(transformer_layers_per_block=down, reverse_transformer_layers_per_block=up)
    layers = [depth or 1 for depth in model.deepest]
    layers[-1] = model.mid_depth or layers[-1]
    used = {depth for depth in (*model.deepest, model.mid_depth) if depth}
    return dict(transformer_layers_per_block=used.pop() if len(used) == 1 else layers)


def _nested(depths: tuple[int, ...]) -> int | list[int]:
    """The depths of a level; 1 where there is no attention, which diffusers reads past."""
    return list(depths) if any(depths) else 1


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


def _listed(config: Mapping[str, Any]) -> list[Any]:
    value = config.get('transformer_layers_per_block', 1)
    return list(value) if isinstance(value, list | tuple) else [value]


def _layers(fields: Fields, key: str, attended: list[bool], count: int) -> list[list[int]]:
    """For each level the numbers of transformer blocks behind so many residual blocks; 0 where it has no attention."""
    value = fields.config.get(key, DEFAULTS[key])
    if not isinstance(value, list | tuple):
        value = fields.levels(key, len(attended))
    fields.used.add(key)
    if len(value) != len(attended):
        raise fields.error(key, value, f'there must be one entry for each of the {len(attended)} levels')
    found = []
    for each, attends in zip(value, attended, strict=True):
        depths = list(each) if isinstance(each, list | tuple) else [each] * count
        if attends and (len(depths) != count or any(type(n) is not int or not 0 < n <= 256 for n in depths)):
            raise fields.error(
                key, value, f'a level with attention has a number from 1 to 256, or a list of {count}'
            )
        found.append(depths if attends else [0] * count)
    return found


def _mid_depth(fields: Fields) -> int:
    """The transformer blocks of the middle: those of the last level, attention or not."""
    last = _listed(fields.config)[-1]
    if type(last) is not int or not 0 < last <= 256:
        raise fields.error(
            'transformer_layers_per_block', last, 'the middle takes the last number, from 1 to 256'
        )
    return last


def _heads(fields: Fields, features: list[int], attended: list[bool]) -> dict[str, int]:
    """num_heads or head_width of attentions whose numbers of heads are in attention_head_dim."""
    heads = fields.levels('attention_head_dim', len(features))
    value = fields.config.get('attention_head_dim', DEFAULTS['attention_head_dim'])
    if isinstance(value, int):
        return dict(num_heads=value)
    # The middle block has the heads of the last level.
    used = [level for level in range(len(features)) if attended[level]] + [len(features) - 1]
    widths = {features[level] / heads[level] for level in used}
    if len(widths) == 1 and next(iter(widths)).is_integer():
        return dict(head_width=int(widths.pop()))
    counts = {heads[level] for level in used}
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
