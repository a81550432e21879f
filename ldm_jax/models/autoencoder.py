"""Encoder and decoder of the KL and VQ first stages, and the checks that all first stages make.

First stages (vae, vq, taesd) share `encode(x)`, `latents(x, eps=None)`, its half `draw(encoded, eps=None)`,
`decode(z)` and `downscale`.
Ref: Esser et al. 2021, arXiv:2012.09841; Rombach et al. 2022, arXiv:2112.10752, appendix G.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.models.attention import SpatialSelfAttention
from ldm_jax.models.resnet import Downsample, ResBlock, Upsample
from ldm_jax.types import Array

EPSILON = 1e-6  # of every norm here; U-Net blocks have 1e-5


class Encoder(nn.Module):
    """Images [B, H, W, C] -> features [B, H / f, W / f, out_channels], f = 2^(levels - 1)."""

    out_channels: int
    channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    mid_attention: bool = True
    num_groups: int = 32
    wrap: str = ''
    remat: bool = False
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        res_block, attention = _blocks(self)
        h = layers.conv(self.channels, wrap=self.wrap, dtype=self.dtype, name='conv_in')(x)
        for level, mult in enumerate(self.channel_mult):
            for i in range(self.num_res_blocks):
                h = res_block(self.channels * mult, name=f'down_{level}_res_{i}')(h)
                if level in self.attention_levels:
                    h = attention(name=f'down_{level}_attn_{i}')(h)
            if level < len(self.channel_mult) - 1:
                h = Downsample((0, 1), self.dtype, self.wrap, name=f'down_{level}_sample')(h)
        h = _middle(self, h)
        return _out(self, h)


class Decoder(nn.Module):
    """Features [B, h, w, Z] -> images [B, f h, f w, out_channels], f = 2^(levels - 1)."""

    out_channels: int
    channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    mid_attention: bool = True
    num_groups: int = 32
    wrap: str = ''
    remat: bool = False
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        res_block, attention = _blocks(self)
        widest = self.channels * self.channel_mult[-1]
        h = layers.conv(widest, wrap=self.wrap, dtype=self.dtype, name='conv_in')(z)
        h = _middle(self, h)
        for level, mult in reversed(list(enumerate(self.channel_mult))):
            for i in range(self.num_res_blocks + 1):
                h = res_block(self.channels * mult, name=f'up_{level}_res_{i}')(h)
                if level in self.attention_levels:
                    h = attention(name=f'up_{level}_attn_{i}')(h)
            if level > 0:
                h = Upsample(self.dtype, self.wrap, name=f'up_{level}_sample')(h)
        return _out(self, h)


def halves(model: nn.Module, encoder_channels: int) -> tuple[Encoder, Decoder]:
    """Encoder (to encoder_channels) and decoder of a first stage, from its fields of the same names.

    Raises ValueError when attention_levels names a level that channel_mult does not have.
    """
    levels = len(model.channel_mult)
    if not set(model.attention_levels) <= set(range(levels)):
        raise ValueError(
            f'attention_levels {model.attention_levels} must lie in 0 .. {levels - 1}, the levels of '
            f'channel_mult {model.channel_mult}; level 0 is the full resolution.'
        )
    shared = dict(
        channels=model.channels,
        channel_mult=model.channel_mult,
        num_res_blocks=model.num_res_blocks,
        attention_levels=model.attention_levels,
        mid_attention=model.mid_attention,
        num_groups=model.num_groups,
        wrap=model.wrap,
        remat=model.remat,
        attention_backend=model.attention_backend,
        dtype=model.dtype,
    )
    return Encoder(encoder_channels, **shared), Decoder(model.image_channels, **shared)


def check_images(x: Array, channels: int, multiple: int) -> None:
    """Raises ValueError unless x is [B, H, W, channels] with sides that are multiples of `multiple`."""
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ValueError(
            f'The first stage takes images [B, H, W, {channels}]; got {x.shape}. Channels come last.'
        )
    if x.shape[1] % multiple or x.shape[2] % multiple:
        h, w = (multiple * max(1, round(side / multiple)) for side in x.shape[1:3])
        raise ValueError(
            f'Image sides must be multiples of {multiple}; got {x.shape[1]} x {x.shape[2]}. '
            f'Resize or pad to {h} x {w}, say.'
        )


def check_latents(z: Array, channels: int) -> None:
    """Raises ValueError unless z is [B, h, w, channels]."""
    if z.ndim != 4 or z.shape[-1] != channels:
        raise ValueError(
            f'The first stage has latents [B, h, w, {channels}]; got {z.shape}. Channels come last.'
        )


def _blocks(half: Encoder | Decoder) -> tuple[Callable[..., nn.Module], Callable[..., nn.Module]]:
    remat = nn.remat if half.remat else lambda block: block

    def res_block(features, name):
        return remat(ResBlock)(
            features, EPSILON, half.num_groups, wrap=half.wrap, dtype=half.dtype, name=name
        )

    def attention(name):
        return remat(SpatialSelfAttention)(
            1, EPSILON, half.num_groups, backend=half.attention_backend, dtype=half.dtype, name=name
        )

    return res_block, attention


def _middle(half: Encoder | Decoder, h: Array) -> Array:
    res_block, attention = _blocks(half)
    h = res_block(h.shape[-1], name='mid_res_0')(h)
    if half.mid_attention:
        h = attention(name='mid_attn')(h)
    return res_block(h.shape[-1], name='mid_res_1')(h)


def _out(half: Encoder | Decoder, h: Array) -> Array:
    h = layers.group_norm(epsilon=EPSILON, num_groups=half.num_groups, dtype=half.dtype, name='norm_out')(h)
    conv = layers.conv(half.out_channels, wrap=half.wrap, dtype=half.dtype, name='conv_out')
    return conv(nn.silu(h))
