"""First stages of two convolutions, which compile in no time, behind the interface of the real ones."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import layers, vae
from ldm_jax.models.quantizer import Quantizer


class Decoder(nn.Module):
    """Latents [B, h, w, Z] -> images [B, 2 h, 2 w, 3]."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z):
        h = jnp.tanh(layers.conv(4, dtype=self.dtype, name='conv_in')(z))
        return layers.conv(3, dtype=self.dtype, name='conv_out')(layers.upsample_nearest(h))


class Kl(nn.Module):
    """A KL first stage."""

    dtype: jnp.dtype = jnp.float32
    z_channels = 2
    image_channels = 3
    downscale = 2

    def setup(self):
        self.encoder = layers.conv(4, 2, stride=2, padding=0, dtype=self.dtype, name='encoder')
        self.decoder = Decoder(self.dtype)
        self.post_quant_conv = layers.conv(2, 1, dtype=self.dtype, name='post_quant_conv')

    def inputs(self, batch=1, size=16):
        return (jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32),)

    def latents(self, x):
        return vae.sample(self.encoder(x), None)

    def __call__(self, x, eps=None):
        moments = self.encoder(x)
        return self.decoder(self.post_quant_conv(vae.sample(moments, eps))), moments


class Vq(nn.Module):
    """A VQ first stage."""

    dtype: jnp.dtype = jnp.float32
    num_codes = 16
    z_channels = 2
    image_channels = 3
    downscale = 2

    def setup(self):
        self.encoder = layers.conv(2, 2, stride=2, padding=0, dtype=self.dtype, name='encoder')
        self.quantizer = Quantizer(16, 2)
        self.decoder = Decoder(self.dtype)

    def inputs(self, batch=1, size=16):
        return (jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32),)

    def __call__(self, x):
        codes, loss, indices = self.quantizer(self.encoder(x))
        return self.decoder(codes), loss, indices
