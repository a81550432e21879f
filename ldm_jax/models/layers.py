"""The layers that all networks are made of: torch's numerics, logical axis names, float32 parameters.

Logical axis names say what an axis is, not where it goes; sharding rules map them to a mesh:
'embed' (residual stream), 'heads' (heads x head width), 'mlp', 'vocab', 'position', 'time' (the time and
label embedding), 'conv_in' and 'conv_out' (channels of a convolution), 'channels' (of a norm), and None for
axes too small to shard (a convolution's window).

Norms compute their statistics in float32 (or wider), whatever the compute dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ldm_jax import build
from ldm_jax.types import Array

# torch's default for Linear and Conv2d: uniform within 1 / sqrt(fan_in) on either side.
TORCH_INIT = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
ZEROS = nn.initializers.zeros_init()  # a residual branch that starts as the identity
WRAPS = ('', 'x', 'y', 'xy')  # the axes of a seamless image, whose sides are neighbours


def dense(
    features: int,
    *,
    name: str,
    axes: tuple[str | None, str | None],
    use_bias: bool = True,
    kernel_init: nn.initializers.Initializer = TORCH_INIT,
    dtype: jnp.dtype = jnp.float32,
) -> nn.Dense:
    """A linear layer [..., D] -> [..., features]; axes name the kernel's two dimensions."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        name=name,
        kernel_init=nn.with_logical_partitioning(kernel_init, axes),
        bias_init=nn.with_logical_partitioning(ZEROS, axes[1:]),
    )


def conv(
    features: int,
    kernel: int = 3,
    *,
    name: str,
    stride: int = 1,
    padding: int | tuple[int, int] | None = None,
    wrap: str = '',
    use_bias: bool = True,
    kernel_init: nn.initializers.Initializer = TORCH_INIT,
    dtype: jnp.dtype = jnp.float32,
) -> Callable[[Array], Array]:
    """A square convolution [B, H, W, C] -> [B, H', W', features].

    padding: rows and columns of zeros (before, after), one number for both sides; by default kernel // 2,
    which keeps the size at stride 1. Always explicit: 'SAME' at stride 2 pads unlike torch.
    wrap: 'x', 'y' or 'xy' pads that axis, columns or rows, with the other side of the image in place of zeros.
    Raises ValueError for another wrap.
    """
    if wrap not in WRAPS:
        raise build.unknown('axes to wrap', wrap, list(WRAPS))
    padding = kernel // 2 if padding is None else padding
    sides = (padding, padding) if isinstance(padding, int) else tuple(padding)
    rows, columns = (((0, 0), sides) if axis in wrap else (sides, (0, 0)) for axis in 'yx')
    convolve = nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=(rows[0], columns[0]),
        use_bias=use_bias,
        dtype=dtype,
        name=name,
        kernel_init=nn.with_logical_partitioning(kernel_init, (None, None, 'conv_in', 'conv_out')),
        bias_init=nn.with_logical_partitioning(ZEROS, ('conv_out',)),
    )
    if not wrap or sides == (0, 0):
        return convolve
    return lambda x: convolve(jnp.pad(x, ((0, 0), rows[1], columns[1], (0, 0)), mode='wrap'))


def group_norm(
    *, name: str, epsilon: float, num_groups: int = 32, dtype: jnp.dtype = jnp.float32
) -> nn.GroupNorm:
    """GroupNorm over [B, H, W, C]; epsilon is 1e-5 in U-Net blocks, 1e-6 in their transformers and in VAEs."""
    return nn.GroupNorm(
        num_groups,
        epsilon=epsilon,
        use_fast_variance=False,  # E[x^2] - E[x]^2 is off by 3e-2 at mean 100
        dtype=dtype,
        name=name,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones_init(), ('channels',)),
        bias_init=nn.with_logical_partitioning(ZEROS, ('channels',)),
    )


def layer_norm(*, name: str, epsilon: float = 1e-5, dtype: jnp.dtype = jnp.float32) -> nn.LayerNorm:
    """LayerNorm over the last axis with torch's epsilon."""
    return nn.LayerNorm(
        epsilon=epsilon,
        use_fast_variance=False,
        dtype=dtype,
        name=name,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones_init(), ('embed',)),
        bias_init=nn.with_logical_partitioning(ZEROS, ('embed',)),
    )


def embed(
    num_embeddings: int,
    features: int,
    *,
    name: str,
    axes: tuple[str | None, str | None] = ('vocab', 'embed'),
    init: nn.initializers.Initializer | None = None,
    dtype: jnp.dtype = jnp.float32,
) -> nn.Embed:
    """A table [num_embeddings, features] looked up by integers."""
    init = nn.initializers.normal(0.02) if init is None else init
    return nn.Embed(
        num_embeddings,
        features,
        dtype=dtype,
        name=name,
        embedding_init=nn.with_logical_partitioning(init, axes),
    )


def timestep_embedding(t: Array, features: int, dtype: jnp.dtype = jnp.float32) -> Array:
    """Sinusoids of time in Stable Diffusion's order: t [B] -> [B, features], all cosines, then all sines.

    Frequencies fall from 1 to 1 / 10000, computed in float32 at least: 999 radians leave bfloat16 no phase.
    Ref: Ho et al. 2020, arXiv:2006.11239, as in guided-diffusion.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    half = features // 2
    frequencies = jnp.exp(-math.log(10000) / half * jnp.arange(half, dtype=wide))
    angles = t.astype(wide)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1).astype(dtype)


def guidance_embedding(scale: Array, features: int, dtype: jnp.dtype = jnp.float32) -> Array:
    """Sinusoids of the scale of guidance that a network has learned: [B] -> [B, features], all sines, then all cosines.

    They are those of 1000 times what is above 1, no guidance. Ref: Luo et al. 2023, arXiv:2310.04378, section 4.2, as
    in the authors' code.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    half = features // 2
    frequencies = jnp.exp(-math.log(10000) / (half - 1) * jnp.arange(half, dtype=wide))
    angles = 1000 * (scale.astype(wide)[:, None] - 1) * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(dtype)


def upsample_nearest(x: Array) -> Array:
    """Each pixel of x [B, H, W, C] four times: [B, 2 H, 2 W, C]."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
