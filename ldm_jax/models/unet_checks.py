"""Whether a U-Net's fields go together, and whether it is called with what they ask for."""

from __future__ import annotations

from typing import Any

from ldm_jax import build
from ldm_jax.types import Array, Cond


def check_depths(model: Any) -> None:
    """Raises ValueError unless depth, depth_up and mid_depth fit the levels and residual blocks of a U-Net."""
    levels, blocks = len(model.channel_mult), model.num_res_blocks
    for field, count in (('depth', blocks), ('depth_up', blocks + 1)):
        depths = getattr(model, field)
        if len(depths) != levels and (field == 'depth' or depths):
            raise ValueError(
                f'{field} {depths} must have one entry for each level of channel_mult {model.channel_mult}.'
            )
        for depth in depths:
            if isinstance(depth, tuple | list) and len(depth) != count:
                raise ValueError(
                    f'{field} {depths} may have a list for a level, of one entry for each of its {count} '
                    f'residual blocks; got {list(depth)}.'
                )
    if model.depth_up == () and any(isinstance(depth, tuple | list) for depth in model.depth):
        raise ValueError(
            f'depth {model.depth} says each residual block of the way down: say depth_up of the way up.'
        )
    if model.mid_res_blocks not in (0, 1, 2):
        raise ValueError(f'mid_res_blocks must be 0, 1 or 2; got {model.mid_res_blocks}.')
    if model.mid_depth and model.mid_res_blocks < 2:
        raise ValueError(
            f"The middle's attention is between two residual blocks: with mid_res_blocks {model.mid_res_blocks}, "
            f'mid_depth must be 0; got {model.mid_depth}.'
        )
    if model.context_width is None and max(*model.deepest, model.mid_depth) > 1:
        raise ValueError(
            f'Plain self-attention comes once: without context_width, depth {model.depth} and mid_depth '
            f'{model.mid_depth} must be 0 or 1.'
        )


def check_inputs(model: Any, x: Array, cond: Cond) -> None:
    """Raises ValueError as `unet.Model.__call__` says."""
    b, h, w, latent = x.shape
    shapes = {
        'context': 'BLD',
        'concat': 'BhwC',
        'vector': 'BD',
        'label': 'B',
        'guidance': 'B',
        'perturbed': 'B',
        'context_mask': 'BL',
    }
    for part, axes in shapes.items():
        given = getattr(cond, part)
        if given is not None and (len(given.shape) != len(axes) or given.shape[0] != b):
            raise ValueError(
                f'Cond.{part} must be [{", ".join(axes)}] with B = {b}, as in x; got shape {given.shape}.'
            )
    concat = 0 if cond.concat is None else cond.concat.shape[-1]
    if latent + concat != model.in_channels:
        wanted = model.in_channels - latent
        remedy = f'pass Cond(concat=[B, {h}, {w}, {wanted}])' if wanted > 0 else 'leave Cond.concat out'
        raise ValueError(
            f'This U-Net takes {model.in_channels} channels, those of x and of Cond.concat together; '
            f'got {latent} + {concat}. Either {remedy}, or build it with in_channels={latent + concat}.'
        )
    if concat and cond.concat.shape[1:3] != (h, w):
        raise ValueError(
            f'Cond.concat must have the size of x, {h} x {w}; got {cond.concat.shape[1:3]}. Resize it first.'
        )
    if h % model.downscale or w % model.downscale:
        raise ValueError(
            f'Latent sides must be multiples of {model.downscale}, so that this U-Net can halve them '
            f'{len(model.channel_mult) - 1} times; got {h} x {w}. Choose an image size accordingly.'
        )
    widths = {
        'context': model.context_width,
        'vector': model.vector_width,
        'label': model.num_classes,
        'guidance': model.guidance_width,
    }
    for part, width in widths.items():
        given = getattr(cond, part)
        if width is None and given is not None:
            raise ValueError(f'This U-Net takes no Cond.{part}; got shape {given.shape}. Leave it out.')
        if width is not None and given is None:
            kind = {'label': f'integers below {width}', 'guidance': 'a scale for each image'}
            raise ValueError(f'This U-Net needs Cond.{part} ({kind.get(part, f"width {width}")}); got None.')
        if width is not None and part not in ('label', 'guidance') and given.shape[-1] != width:
            raise ValueError(
                f'Cond.{part} must be {width} wide for this U-Net; got {given.shape}. '
                'Is the encoder the one that the model was trained with?'
            )
    if cond.perturbed is not None:
        have = model.self_attention()
        for part in model.perturbed:
            if not any(within(name, part) for name in have):
                raise build.unknown('self-attention of this U-Net to perturb', part, have)


def within(name: str, part: str) -> bool:
    """Whether a block is one part of the network, or in it: 'down_1_attn_0' is in 'down_1' and in 'down'."""
    return f'{name}_'.startswith(f'{part}_')
