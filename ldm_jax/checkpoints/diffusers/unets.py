"""What the config.json files of diffusers' two classes of U-Net share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldm_jax.checkpoints.diffusers.fields import Fields, header, unsupported
from ldm_jax.models import unet

# Sizes to sample at, dropout and precision change no parameter and no output; the width of the sinusoids of
# SDXL's sizes follows from that of the vector.
INERT = (
    'sample_size',
    'dropout',
    'upcast_attention',
    'addition_embed_type_num_heads',
    'addition_time_embed_dim',
    'num_train_timesteps',
    'use_linear_projection',  # read from the number of axes of proj_in.weight
)

# The keys whose values must fit each other.
BUILT_OF = 'block_out_channels, norm_num_groups, attention_head_dim and the numbers of layers'


def check_common(fields: Fields, channels: int) -> None:
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


def shared(class_name: str, model: unet.Model, sample_size: int | None) -> dict[str, Any]:
    """The entries of both classes; ValueError names a field that neither can express."""
    if model.channel_mult[0] != 1:
        raise unsupported('unet.channel_mult', model.channel_mult, 'the first level must have factor 1')
    return header(class_name) | dict(
        act_fn='silu',
        block_out_channels=[model.channels * mult for mult in model.channel_mult],
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


def blocks(kinds: Mapping[str, str], down: Sequence[str]) -> dict[str, list[str]]:
    """down_block_types, and up_block_types to mirror them; kinds: down -> up."""
    return dict(down_block_types=list(down), up_block_types=[kinds[kind] for kind in reversed(down)])
