"""Maps of classes, brought down to the latent's size and to a few channels, for semantic synthesis.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.2.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.types import Array


class Model(nn.Module):
    """maps [B, H, W, in_channels] -> [B, H / 2^num_stages, W / 2^num_stages, out_channels].

    Each stage halves the sides. Bilinear interpolation at half the size without antialiasing, which the
    original uses, reads the middle between two pixels each way: it is the mean of 2 x 2 pixels.
    """

    num_stages: int = 2
    in_channels: int = 182
    out_channels: int = 3
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple:
        """Shapes of `__call__`'s arguments; size is the map's side (default 256)."""
        size = 256 if size is None else size
        return (jax.ShapeDtypeStruct((batch, size, size, self.in_channels), jnp.float32),)

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        """Rescales maps, one-hot over the classes in semantic synthesis.

        Raises ValueError for another number of channels, and for sides that cannot be halved so often.
        """
        _, h, w, channels = maps.shape
        if channels != self.in_channels:
            raise ValueError(
                f'This rescaler takes {self.in_channels} channels, one per class; got {channels}. '
                f'Are the labels one-hot over {self.in_channels} classes?'
            )
        factor = 2**self.num_stages
        if h % factor or w % factor:
            raise ValueError(f'The sides of a map must be multiples of {factor}; got {h} x {w}.')
        x = maps.astype(self.dtype)
        for _ in range(self.num_stages):
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        return layers.conv(
            self.out_channels, 1, use_bias=self.use_bias, dtype=self.dtype, name='channel_mapper'
        )(x)
