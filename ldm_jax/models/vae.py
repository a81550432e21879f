"""The KL autoencoder: images to a diagonal Gaussian over latents, latents to images.

Latents here are the network's own; the factor that a diffusion model scales them by belongs to the pipeline.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.models.autoencoder import check_images, check_latents, halves
from ldm_jax.types import Array

LOGVAR = (-30.0, 20.0)  # log variances are clipped to this


class Model(nn.Module):
    """KL autoencoder for images [B, H, W, C] in [-1, 1] with latents [B, H / f, W / f, z_channels].

    attention_levels: levels (0 = full resolution) with attention after each residual block; the
    published configs name resolutions at 256 pixels instead: 16 is level 4 there. mid_attention: one
    more, between the encoder's last level and the decoder's first, which is there without any of those.
    wrap: 'x', 'y' or 'xy', axes on which convolutions go round, for images without a seam.
    latents_mean, latents_std: of each of the network's latent channels; latents here are then those, normalized
        (Playground 2.5). Without them they are the network's own.
    Ref: Rombach et al. 2022, arXiv:2112.10752; Kingma & Welling 2014, arXiv:1312.6114.
    """

    z_channels: int = 4
    image_channels: int = 3
    channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    mid_attention: bool = True
    num_groups: int = 32
    latents_mean: tuple[float, ...] = ()
    latents_std: tuple[float, ...] = ()
    wrap: str = ''
    remat: bool = False
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        for name in ('latents_mean', 'latents_std'):
            values = getattr(self, name)
            if len(values) not in (0, self.z_channels) or len(values) != len(self.latents_std):
                raise ValueError(
                    f'latents_mean and latents_std must both have {self.z_channels} numbers, one for each latent '
                    f'channel, or none; got {self.latents_mean} and {self.latents_std}.'
                )
        if any(not std > 0 for std in self.latents_std):
            raise ValueError(f'latents_std must be above 0; got {self.latents_std}.')

    def setup(self):
        self.encoder, self.decoder = halves(self, 2 * self.z_channels)
        self.quant_conv = layers.conv(2 * self.z_channels, 1, dtype=self.dtype, name='quant_conv')
        self.post_quant_conv = layers.conv(self.z_channels, 1, dtype=self.dtype, name='post_quant_conv')

    @property
    def downscale(self) -> int:
        """Pixels per latent along each side."""
        return 2 ** (len(self.channel_mult) - 1)

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple[jax.ShapeDtypeStruct]:
        """Shapes of `__call__`'s arguments; size is the image's side in pixels (default 256)."""
        size = 256 if size is None else size
        return (jax.ShapeDtypeStruct((batch, size, size, self.image_channels), jnp.float32),)

    def encode(self, x: Array) -> Array:
        """Images [B, H, W, C] -> moments [B, h, w, 2 Z]: means, then log variances.

        Raises ValueError when the channels are not the model's or a side is not a multiple of downscale.
        """
        check_images(x, self.image_channels, self.downscale)
        moments = self.quant_conv(self.encoder(x))
        if not self.latents_std:
            return moments
        mean, logvar = jnp.split(moments, 2, axis=-1)
        std = jnp.asarray(self.latents_std, moments.dtype)
        mean = (mean - jnp.asarray(self.latents_mean, moments.dtype)) / std
        return jnp.concatenate([mean, jnp.clip(logvar, *LOGVAR) - 2 * jnp.log(std)], axis=-1)

    def latents(self, x: Array, eps: Array | None = None) -> Array:
        """Images to latents [B, h, w, Z]: the posterior's mean, or with noise eps its sample."""
        return self.draw(self.encode(x), eps)

    def draw(self, moments: Array, eps: Array | None = None) -> Array:
        """What `latents` makes of the answer of `encode`."""
        return sample(moments, eps)

    def decode(self, z: Array) -> Array:
        """Latents [B, h, w, Z] -> images [B, H, W, C], nominally in [-1, 1] (not clipped)."""
        check_latents(z, self.z_channels)
        if self.latents_std:
            z = z * jnp.asarray(self.latents_std, z.dtype) + jnp.asarray(self.latents_mean, z.dtype)
        return self.decoder(self.post_quant_conv(z))

    def __call__(self, x: Array, eps: Array | None = None) -> tuple[Array, Array]:
        """Images -> (reconstruction, moments); with eps the reconstruction is of the posterior's sample."""
        moments = self.encode(x)
        return self.decode(sample(moments, eps)), moments


def mean_logvar(moments: Array) -> tuple[Array, Array]:
    """Moments [..., 2 Z] -> means and log variances [..., Z], float32 at least, log variance in [-30, 20]."""
    mean, logvar = jnp.split(moments.astype(jnp.promote_types(moments.dtype, jnp.float32)), 2, axis=-1)
    return mean, jnp.clip(logvar, *LOGVAR)


def sample(moments: Array, eps: Array | None) -> Array:
    """Latents mean + std eps [..., Z]; the mean when eps is None."""
    mean, logvar = mean_logvar(moments)
    return mean if eps is None else mean + jnp.exp(0.5 * logvar) * eps


def kl_divergence(moments: Array) -> Array:
    """KL(posterior || standard normal) in nats, summed over each image: [B, h, w, 2 Z] -> [B]."""
    mean, logvar = mean_logvar(moments)
    return 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar, axis=(1, 2, 3))
