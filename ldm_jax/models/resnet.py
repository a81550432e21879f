"""The residual block of U-Nets and autoencoders, and their changes of resolution."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.types import Array


class ResBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, added to x [B, H, W, C] -> [B, H', W', features].

    temb [B, D] is added between the convolutions, or with scale_shift modulates the second norm:
    norm(h) (1 + scale) + shift (Dhariwal & Nichol 2021, arXiv:2105.05233, AdaGN).
    resample 'up' or 'down' changes the resolution inside the block, before the first convolution,
    on both branches: nearest neighbour up, 2x2 mean down. wrap: of the convolutions, as in layers.conv.
    """

    features: int
    epsilon: float = 1e-5
    num_groups: int = 32
    scale_shift: bool = False
    resample: str = 'none'
    zero_init: bool = False
    wrap: str = ''
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, temb: Array | None = None) -> Array:
        def norm(name):
            return layers.group_norm(
                epsilon=self.epsilon, num_groups=self.num_groups, dtype=self.dtype, name=name
            )

        h = nn.silu(norm('norm1')(x))
        if self.resample == 'up':
            h, x = layers.upsample_nearest(h), layers.upsample_nearest(x)
        elif self.resample == 'down':
            h, x = (nn.avg_pool(a, (2, 2), strides=(2, 2)) for a in (h, x))
        h = layers.conv(self.features, wrap=self.wrap, dtype=self.dtype, name='conv1')(h)

        if temb is None:
            h = norm('norm2')(h)
        else:
            width = 2 * self.features if self.scale_shift else self.features
            time = layers.dense(width, axes=('time', 'conv_out'), dtype=self.dtype, name='time')(
                nn.silu(temb)
            )
            time = time[:, None, None, :]
            if self.scale_shift:
                scale, shift = jnp.split(time, 2, axis=-1)
                h = norm('norm2')(h) * (1 + scale) + shift
            else:
                h = norm('norm2')(h + time)
        init = layers.ZEROS if self.zero_init else layers.TORCH_INIT
        conv2 = layers.conv(self.features, wrap=self.wrap, kernel_init=init, dtype=self.dtype, name='conv2')
        h = conv2(nn.silu(h))
        if x.shape[-1] != self.features:
            x = layers.conv(self.features, 1, dtype=self.dtype, name='skip')(x)
        return x + h


class Upsample(nn.Module):
    """Nearest neighbour to twice the size, then a convolution: [B, H, W, C] -> [B, 2 H, 2 W, C]."""

    dtype: jnp.dtype = jnp.float32
    wrap: str = ''

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = layers.conv(x.shape[-1], wrap=self.wrap, dtype=self.dtype, name='conv')
        return conv(layers.upsample_nearest(x))


class Downsample(nn.Module):
    """Convolution of stride 2: [B, H, W, C] -> [B, H / 2, W / 2, C].

    padding: (1, 1) in U-Nets; (0, 1), right and bottom only, in autoencoders.
    """

    padding: tuple[int, int]
    dtype: jnp.dtype = jnp.float32
    wrap: str = ''

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return layers.conv(
            x.shape[-1], stride=2, padding=self.padding, wrap=self.wrap, dtype=self.dtype, name='conv'
        )(x)
