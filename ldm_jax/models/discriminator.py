"""PatchGAN, the discriminator of first stages: a convolutional classifier of overlapping patches, real or made.

Norms take the statistics of the batch that they are given, as in the original, where the discriminator is never
used but in training. The batch is the whole one: under pmap the moments are averaged over `axis_name`, so that
any number of devices computes the same (the original's processes each have their own).
Running averages are kept in the collection 'batch_stats' of whoever makes it mutable; `running` uses them.
Ref: Isola et al. 2017, arXiv:1611.07004, section 3.2.2; Esser et al. 2021, arXiv:2012.09841.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.models import layers
from ldm_jax.types import Array

KERNEL = 4
EPSILON = 1e-5
MOMENTUM = 0.1  # of the newest batch in the running averages
INIT = nn.initializers.normal(0.02)


class Model(nn.Module):
    """Images [B, H, W, C] in [-1, 1] -> logits [B, h, w, 1], higher for what seems real.

    num_layers: convolutions of stride 2; three see patches of 70 x 70 pixels, two 34, one 16.
    """

    channels: int = 64
    num_layers: int = 3
    image_channels: int = 3
    dtype: jnp.dtype = jnp.float32

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple[jax.ShapeDtypeStruct]:
        """Shapes of `__call__`'s arguments; size is the image's side in pixels (default 256)."""
        size = 256 if size is None else size
        return (jax.ShapeDtypeStruct((batch, size, size, self.image_channels), jnp.float32),)

    @nn.compact
    def __call__(self, x: Array, running: bool = False, axis_name: str | None = None) -> Array:
        """Logits in float32 at least.

        Args:
            running: normalize by the running averages instead of by the batch.
            axis_name: of pmap, when under it.

        Raises ValueError for images of other channels, or too small for the layers.
        """
        smallest = 3 * 2**self.num_layers
        if x.ndim != 4 or x.shape[-1] != self.image_channels or min(x.shape[1:3]) < smallest:
            raise ValueError(
                f'A discriminator of num_layers={self.num_layers} takes images [B, H, W, {self.image_channels}] with '
                f'sides of at least {smallest}; got {x.shape}. Fewer layers take smaller ones.'
            )

        def conv(features, name, stride=1, use_bias=True):
            return layers.conv(
                features,
                KERNEL,
                stride=stride,
                padding=1,
                use_bias=use_bias,
                kernel_init=INIT,
                dtype=self.dtype,
                name=name,
            )

        h = nn.leaky_relu(conv(self.channels, 'conv_in', stride=2)(x), 0.2)
        for n in range(1, self.num_layers + 1):
            stride = 2 if n < self.num_layers else 1
            h = conv(self.channels * min(2**n, 8), f'conv_{n}', stride, use_bias=False)(h)
            h = BatchNorm(name=f'norm_{n}')(h, running, axis_name)
            h = nn.leaky_relu(h, 0.2)
        logits = conv(1, 'conv_out')(h)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class BatchNorm(nn.Module):
    """Batch normalization of [B, H, W, C] with torch's numerics: the running variance is the unbiased one."""

    @nn.compact
    def __call__(self, x: Array, running: bool, axis_name: str | None) -> Array:
        shape = x.shape[-1:]
        scale = self.param('scale', nn.with_logical_partitioning(_around_one, ('channels',)), shape)
        bias = self.param('bias', nn.with_logical_partitioning(layers.ZEROS, ('channels',)), shape)
        h = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if running or self.is_mutable_collection('batch_stats'):
            kept_mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
            kept_var = self.variable('batch_stats', 'var', jnp.ones, shape)
        if running:
            mean, var = kept_mean.value, kept_var.value
        else:
            mean = _average(h, axis_name)
            var = _average((h - mean) ** 2, axis_name)
            if self.is_mutable_collection('batch_stats') and not self.is_initializing():
                count = h.size // shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name))
                kept_mean.value += MOMENTUM * (mean - kept_mean.value)
                kept_var.value += MOMENTUM * (var * count / (count - 1) - kept_var.value)
        return ((h - mean) * (scale * jax.lax.rsqrt(var + EPSILON)) + bias).astype(x.dtype)


def _average(h: Array, axis_name: str | None) -> Array:
    """Means [C] over the whole batch and its pixels."""
    mean = jnp.mean(h, axis=(0, 1, 2))
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)


def _around_one(key, shape, dtype=jnp.float32):
    return 1 + INIT(key, shape, dtype)
