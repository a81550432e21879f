"""First stages' config.json in diffusers: AutoencoderKL, VQModel and AutoencoderTiny."""

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
from ldm_jax.models import taesd, vae, vq

BLOCKS = {'DownEncoderBlock2D': 'UpDecoderBlock2D', 'AttnDownEncoderBlock2D': 'AttnUpDecoderBlock2D'}
DEFAULTS = dict(
    in_channels=3,
    down_block_types=['DownEncoderBlock2D'],
    up_block_types=['UpDecoderBlock2D'],
    block_out_channels=[64],
    layers_per_block=1,
    norm_num_groups=32,
    mid_block_add_attention=True,
)
KL_DEFAULTS = dict(latent_channels=4, latents_mean=None, latents_std=None)
TINY_DEFAULTS = dict(
    in_channels=3,
    encoder_block_out_channels=[64, 64, 64, 64],
    decoder_block_out_channels=[64, 64, 64, 64],
    latent_channels=4,
    num_encoder_blocks=[1, 3, 3, 3],
    num_decoder_blocks=[3, 3, 3, 1],
)
INERT = ('sample_size', 'scaling_factor', 'force_upcast')

# The factors of files that are older than the field. VQ models were trained on unscaled latents, whatever the
# class has for a default since.
SCALES = {'AutoencoderKL': 0.18215, 'VQModel': 1.0, 'AutoencoderTiny': 1.0}


def read_kl(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of an AutoencoderKL; ValueError names a setting that model vae does not have."""
    fields = Fields(config, where, DEFAULTS | KL_DEFAULTS)
    fields.only('use_quant_conv', True)
    fields.only('use_post_quant_conv', True)
    fields.only('shift_factor', None, 0.0)
    normal = {key: list(fields(key) or ()) for key in ('latents_mean', 'latents_std')}
    found = spec('vae', z_channels=fields('latent_channels'), **_autoencoder(fields), **normal)
    fields.finish(INERT)
    return fields.built('models', found, 'latents_mean, latents_std and the numbers of channels')


def read_vq(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of a VQModel; ValueError names a setting that model vq does not have."""
    fields = Fields(config, where, DEFAULTS | dict(latent_channels=3, num_vq_embeddings=256))
    z_channels = fields('latent_channels')
    fields.only('vq_embed_dim', None, z_channels)
    fields.only('norm_type', 'group')
    fields.only('lookup_from_codebook', False)
    found = spec('vq', num_codes=fields('num_vq_embeddings'), z_channels=z_channels, **_autoencoder(fields))
    fields.finish(INERT)
    return found


def read_tiny(config: Mapping[str, Any], where: str = 'config.json') -> Spec:
    """The spec of an AutoencoderTiny; ValueError names a setting that model taesd does not have."""
    fields = Fields(config, where, TINY_DEFAULTS)
    for key, value in dict(
        act_fn='relu',
        upsample_fn='nearest',
        upsampling_scaling_factor=2,
        latent_magnitude=3,
        latent_shift=0.5,
        shift_factor=0.0,
    ).items():
        fields.only(key, value)
    fields.only('out_channels', 3, fields('in_channels'))
    channels, blocks = list(fields('encoder_block_out_channels')), list(fields('num_encoder_blocks'))
    if len(set(channels)) > 1:
        raise fields.error('encoder_block_out_channels', channels, 'all levels must have the same')
    for key, expected in (
        ('decoder_block_out_channels', channels),
        ('num_decoder_blocks', blocks[::-1]),
    ):
        if list(fields(key)) != expected:
            raise fields.error(key, fields(key), f"it must be {expected}, to mirror the encoder's")
    # Older files list the channels of both under one name that the class itself fills in today.
    fields.only('block_out_channels', channels, channels[:1])
    found = spec(
        'taesd',
        z_channels=fields('latent_channels'),
        image_channels=fields('in_channels'),
        channels=channels[0],
        num_blocks=blocks,
    )
    fields.finish(INERT)
    return found


def write(
    model: vae.Model | vq.Model | taesd.Model, scaling_factor: float | None, image_size: int | None
) -> dict[str, Any]:
    """The config.json of a first stage.

    Args:
        model: the first stage.
        scaling_factor: factor on its latents; None where no diffusion model goes with it.
        image_size: side in pixels, or None.

    Raises ValueError, naming the field, for what diffusers does not have.
    """
    scale = {} if scaling_factor is None else dict(scaling_factor=scaling_factor)
    if isinstance(model, taesd.Model):
        if model.mid_norm:
            raise unsupported('first_stage.mid_norm', True, 'AutoencoderTiny has none')
        channels = [model.channels] * len(model.num_blocks)
        return dict(
            header('AutoencoderTiny'),
            act_fn='relu',
            decoder_block_out_channels=channels,
            encoder_block_out_channels=channels,
            in_channels=model.image_channels,
            latent_channels=model.z_channels,
            num_decoder_blocks=list(reversed(model.num_blocks)),
            num_encoder_blocks=list(model.num_blocks),
            out_channels=model.image_channels,
            **scale,
        )
    if model.channel_mult[0] != 1:
        raise unsupported(
            'first_stage.channel_mult', model.channel_mult, 'the first level must have factor 1'
        )
    kinds = list(BLOCKS)
    down = [kinds[level in model.attention_levels] for level in range(len(model.channel_mult))]
    config = dict(
        act_fn='silu',
        block_out_channels=[model.channels * mult for mult in model.channel_mult],
        down_block_types=down,
        in_channels=model.image_channels,
        latent_channels=model.z_channels,
        layers_per_block=model.num_res_blocks,
        mid_block_add_attention=model.mid_attention,
        norm_num_groups=model.num_groups,
        out_channels=model.image_channels,
        up_block_types=[BLOCKS[kind] for kind in reversed(down)],
        **scale,
    )
    if image_size is not None:
        config['sample_size'] = image_size
    if isinstance(model, vq.Model):
        return (
            header('VQModel')
            | config
            | dict(num_vq_embeddings=model.num_codes, vq_embed_dim=model.z_channels, norm_type='group')
        )
    if model.latents_std:
        config |= dict(latents_mean=list(model.latents_mean), latents_std=list(model.latents_std))
    return header('AutoencoderKL') | config | dict(force_upcast=True)


def _autoencoder(fields: Fields) -> dict[str, Any]:
    channels, mult = multipliers(fields)
    groups = fields('norm_num_groups')
    if channels % groups:
        raise fields.error(
            'norm_num_groups', groups, f'block_out_channels {channels} must be a multiple of it'
        )
    fields.only('act_fn', 'silu', 'swish')
    fields.only('out_channels', 3, fields('in_channels'))
    blocks = mirrored(fields, BLOCKS)
    if len(blocks) != len(mult):
        raise fields.error('down_block_types', blocks, f'there must be one for each of {len(mult)} levels')
    return dict(
        image_channels=fields('in_channels'),
        channels=channels,
        channel_mult=mult,
        num_res_blocks=fields('layers_per_block'),
        attention_levels=[level for level, kind in enumerate(blocks) if kind.startswith('Attn')],
        mid_attention=fields('mid_block_add_attention'),
        num_groups=groups,
    )
