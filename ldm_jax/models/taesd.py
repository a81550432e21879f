"""TAESD, the tiny autoencoder: a distilled stand-in for a big one, for previews and for slow machines.

Its latents are those that the big model's diffusion network sees, so Stable Diffusion's times 0.18215: the
scale factor of a tiny autoencoder is 1. No noise is drawn.
Ref: the published weights, madebyollin/taesd; there is no paper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.models.autoencoder import check_images, check_latents
from ldm_jax.types import Array

LATENT_MAGNITUDE = 3.0  # the decoder bounds latents to this, smoothly
LATENT_SHIFT = 0.5


class Model(nn.Module):
    """Tiny autoencoder for images [B, H, W, C] in [-1, 1] with latents [B, H / f, W / f, z_channels].

    num_blocks: of the encoder's levels, from full resolution down; the decoder's are the same.
    mid_norm: each block of the lowest level first adds a branch with GroupNorm, as distilling FLUX.2 needed.
    wrap: 'x', 'y' or 'xy', axes on which convolutions go round, for images without a seam.
    The published ones: SD, SDXL z_channels 4; SD3, FLUX.1 16; FLUX.2 32 with mid_norm.
    The networks inside take and give pixels in [0, 1]; `encode` and `decode` convert.
    """

    z_channels: int = 4
    image_channels: int = 3
    channels: int = 64
    num_blocks: tuple[int, ...] = (1, 3, 3, 3)
    mid_norm: bool = False
    wrap: str = ''
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        shared = dict(
            channels=self.channels,
            num_blocks=self.num_blocks,
            mid_norm=self.mid_norm,
            wrap=self.wrap,
            remat=self.remat,
            dtype=self.dtype,
        )
        self.encoder = Encoder(self.z_channels, **shared)
        self.decoder = Decoder(self.image_channels, **shared)

    @property
    def downscale(self) -> int:
        """Pixels per latent along each side."""
        return 2 ** (len(self.num_blocks) - 1)

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple[jax.ShapeDtypeStruct]:
        """Shapes of `__call__`'s arguments; size is the image's side in pixels (default 256)."""
        size = 256 if size is None else size
        return (jax.ShapeDtypeStruct((batch, size, size, self.image_channels), jnp.float32),)

    def encode(self, x: Array) -> Array:
        """Images [B, H, W, C] -> latents [B, h, w, Z], float32 at least.

        Raises ValueError when the channels are not the model's or a side is not a multiple of downscale.
        """
        check_images(x, self.image_channels, self.downscale)
        z = self.encoder((x + 1) / 2)
        return z.astype(jnp.promote_types(z.dtype, jnp.float32))

    def latents(self, x: Array, eps: Array | None = None) -> Array:
        """What a diffusion model learns: `encode`; eps is not used, there being no posterior to sample."""
        return self.draw(self.encode(x), eps)

    def draw(self, z: Array, eps: Array | None = None) -> Array:
        """What `latents` makes of the answer of `encode`: nothing."""
        return z

    def decode(self, z: Array) -> Array:
        """Latents [B, h, w, Z] -> images [B, H, W, C], nominally in [-1, 1] (not clipped)."""
        check_latents(z, self.z_channels)
        return 2 * self.decoder(z) - 1

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Images -> (reconstruction, latents)."""
        z = self.encode(x)
        return self.decode(z), z


class Encoder(nn.Module):
    """Images [B, H, W, C] in [0, 1] -> latents [B, H / f, W / f, out_channels]."""

    out_channels: int
    channels: int
    num_blocks: tuple[int, ...]
    mid_norm: bool = False
    wrap: str = ''
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        block, conv, last = _blocks(self), _conv(self), len(self.num_blocks) - 1
        h = conv(self.channels, name='conv_in')(x)
        for level, count in enumerate(self.num_blocks):
            for i in range(count):
                h = block(level == last, name=f'down_{level}_block_{i}')(h)
            if level < last:
                h = conv(self.channels, stride=2, use_bias=False, name=f'down_{level}_sample')(h)
        return conv(self.out_channels, name='conv_out')(h)


class Decoder(nn.Module):
    """Latents [B, h, w, Z] -> images [B, f h, f w, out_channels] in [0, 1], nominally."""

    out_channels: int
    channels: int
    num_blocks: tuple[int, ...]
    mid_norm: bool = False
    wrap: str = ''
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        block, conv, last = _blocks(self), _conv(self), len(self.num_blocks) - 1
        h = LATENT_MAGNITUDE * jnp.tanh(z / LATENT_MAGNITUDE)
        h = nn.relu(conv(self.channels, name='conv_in')(h))
        for level, count in reversed(list(enumerate(self.num_blocks))):
            for i in range(count):
                h = block(level == last, name=f'up_{level}_block_{i}')(h)
            if level > 0:
                h = layers.upsample_nearest(h)
                h = conv(self.channels, use_bias=False, name=f'up_{level}_sample')(h)
        return conv(self.out_channels, name='conv_out')(h)


class Block(nn.Module):
    """Three convolutions beside the identity: x [B, H, W, C] -> [B, H, W, C]."""

    norm: bool
    wrap: str = ''
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels, conv = x.shape[-1], _conv(self)
        if self.norm:
            h = conv(4 * channels, 1, name='norm_in', use_bias=False)(x)
            h = nn.relu(layers.group_norm(epsilon=1e-5, num_groups=4, dtype=self.dtype, name='norm')(h))
            x = x + conv(channels, 1, name='norm_out', use_bias=False)(h)
        h = nn.relu(conv(channels, name='conv1')(x))
        h = nn.relu(conv(channels, name='conv2')(h))
        return nn.relu(x + conv(channels, name='conv3')(h))


def to_unit(z: Array) -> Array:
    """Latents from -3 to 3 -> [0, 1], clipped: as an image file keeps them."""
    return jnp.clip(z / (2 * LATENT_MAGNITUDE) + LATENT_SHIFT, 0.0, 1.0)


def from_unit(z: Array) -> Array:
    """The inverse of `to_unit`: [0, 1] -> latents."""
    return (z - LATENT_SHIFT) * (2 * LATENT_MAGNITUDE)


def _blocks(half: Encoder | Decoder) -> Callable[..., nn.Module]:
    remat = nn.remat if half.remat else lambda block: block

    def block(lowest, name):
        return remat(Block)(half.mid_norm and lowest, half.wrap, half.dtype, name=name)

    return block


def _conv(part: nn.Module) -> Callable[..., Callable[[Array], Array]]:
    return partial(layers.conv, wrap=part.wrap, dtype=part.dtype)
