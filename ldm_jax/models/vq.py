"""The VQ autoencoder: images to latents, latents to the nearest codes, codes to images.

Diffusion runs on the latents before quantization, unscaled; decoding begins with the quantizer, which
removes the noise that the sampler leaves.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.models.autoencoder import check_images, check_latents, halves
from ldm_jax.models.quantizer import Quantizer
from ldm_jax.types import Array


class Model(nn.Module):
    """VQ autoencoder for images [B, H, W, C] in [-1, 1] with latents [B, H / f, W / f, z_channels].

    attention_levels, mid_attention, wrap: as in vae.Model; beta, legacy: as in Quantizer.
    Ref: Rombach et al. 2022, arXiv:2112.10752; Esser et al. 2021, arXiv:2012.09841.
    """

    num_codes: int = 8192
    z_channels: int = 3
    image_channels: int = 3
    channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    mid_attention: bool = True
    beta: float = 0.25
    legacy: bool = True
    num_groups: int = 32
    wrap: str = ''
    remat: bool = False
    attention_backend: str = 'auto'
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.encoder, self.decoder = halves(self, self.z_channels)
        self.quantizer = Quantizer(self.num_codes, self.z_channels, self.beta, self.legacy)
        self.quant_conv = layers.conv(self.z_channels, 1, dtype=self.dtype, name='quant_conv')
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
        """Images [B, H, W, C] -> latents before quantization [B, h, w, Z], float32 at least.

        Raises ValueError when the channels are not the model's or a side is not a multiple of downscale.
        """
        check_images(x, self.image_channels, self.downscale)
        z = self.quant_conv(self.encoder(x))
        return z.astype(jnp.promote_types(z.dtype, jnp.float32))

    def latents(self, x: Array, eps: Array | None = None) -> Array:
        """What a diffusion model learns: `encode`; eps is not used, there being no posterior to sample."""
        return self.draw(self.encode(x), eps)

    def draw(self, z: Array, eps: Array | None = None) -> Array:
        """What `latents` makes of the answer of `encode`: nothing."""
        return z

    def quantize(self, z: Array) -> tuple[Array, Array, Array]:
        """Latents [B, h, w, Z] -> (quantized [B, h, w, Z], codebook loss, indices [B, h, w])."""
        return self.quantizer(z)

    def decode(self, z: Array, quantize: bool = True) -> Array:
        """Latents [B, h, w, Z] -> images [B, H, W, C], nominally in [-1, 1] (not clipped).

        quantize: false for codes, and for latents that are wanted as they are.
        """
        check_latents(z, self.z_channels)
        if quantize:
            z = self.quantize(z)[0]
        return self.decoder(self.post_quant_conv(z))

    def __call__(self, x: Array) -> tuple[Array, Array, Array]:
        """Images -> (reconstruction, codebook loss, indices [B, h, w])."""
        codes, loss, indices = self.quantize(self.encode(x))
        return self.decode(codes, quantize=False), loss, indices
