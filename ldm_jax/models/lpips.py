"""LPIPS, the learned perceptual distance of two images.

    d(x, y) = sum over taps l of mean over pixels of sum over channels of  w_l (f_l(x) - f_l(y))^2

f_l are a classifier's features after a ReLU, each pixel's scaled to length 1; w_l >= 0 were fitted to people's
judgements. Weights: checkpoints/loss_networks.py reads the published ones.
Ref: Zhang et al. 2018, arXiv:1801.03924, eq. 1; version 0.1 of the authors' package. Trunks: Simonyan & Zisserman
2015, arXiv:1409.1556 (VGG-16), and Krizhevsky 2014, arXiv:1404.5997 (AlexNet).
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from ldm_jax.build import unknown
from ldm_jax.models import layers
from ldm_jax.types import Array

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, of [-1, 1]
EPSILON = 1e-10  # beside the length of a feature vector


@dataclasses.dataclass(frozen=True)
class Group:
    """Convolutions with a ReLU after each, up to a tap; `pool` is the window of the maximum, stride 2, before."""

    features: tuple[int, ...]
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int | None = None


TRUNKS = {
    'vgg': (
        Group((64, 64)),
        Group((128, 128), pool=2),
        Group((256, 256, 256), pool=2),
        Group((512, 512, 512), pool=2),
        Group((512, 512, 512), pool=2),
    ),
    'alex': (
        Group((64,), kernel=11, stride=4, padding=2),
        Group((192,), kernel=5, padding=2, pool=3),
        Group((384,), pool=3),
        Group((256,)),
        Group((256,)),
    ),
}
SMALLEST = {'vgg': 16, 'alex': 31}  # pixels along a side that leave one at the last tap


class Model(nn.Module):
    """The distance of images x and y [B, H, W, 3] in [-1, 1] -> [B], from 0 for equal ones.

    trunk: 'vgg', which first stages are trained with, or 'alex', which published scores are measured with.
    dtype: of the convolutions; distances are float32 at least.
    """

    trunk: str = 'vgg'
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        if self.trunk not in TRUNKS:
            raise unknown('LPIPS trunk', self.trunk, sorted(TRUNKS))
        self.features = Trunk(self.trunk, self.dtype)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        self.heads = [
            layers.conv(1, 1, use_bias=False, kernel_init=_positive, dtype=wide, name=f'head_{level}')
            for level in range(len(TRUNKS[self.trunk]))
        ]

    def inputs(self, batch: int = 1, size: int | None = None) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes of `__call__`'s arguments; size is the images' side in pixels (default 64)."""
        size = 64 if size is None else size
        return (jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32),) * 2

    def __call__(self, x: Array, y: Array) -> Array:
        """Raises ValueError for images of two shapes, not of three channels, or too small for the trunk."""
        smallest = SMALLEST[self.trunk]
        if x.shape != y.shape or x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < smallest:
            raise ValueError(
                f'LPIPS with the trunk {self.trunk!r} compares two batches of images [B, H, W, 3] with sides of at '
                f'least {smallest}; got {x.shape} and {y.shape}.'
            )
        taps = zip(self.heads, self.features(x), self.features(y), strict=True)
        # [B, h, w, 1] each
        distances = (head((_unit(a) - _unit(b)) ** 2) for head, a, b in taps)
        return sum(jnp.mean(d, axis=(1, 2, 3)) for d in distances)


class Trunk(nn.Module):
    """Images [B, H, W, 3] in [-1, 1] -> features of the five taps [B, h, w, C]."""

    trunk: str
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        h = (x - jnp.asarray(SHIFT, x.dtype)) / jnp.asarray(SCALE, x.dtype)
        taps = []
        for level, group in enumerate(TRUNKS[self.trunk]):
            if group.pool:
                h = nn.max_pool(h, (group.pool, group.pool), strides=(2, 2))
            for i, features in enumerate(group.features):
                conv = layers.conv(
                    features,
                    group.kernel,
                    stride=group.stride,
                    padding=group.padding,
                    dtype=self.dtype,
                    name=f'conv_{level}_{i}',
                )
                h = nn.relu(conv(h))
            taps.append(h)
        return taps


def _unit(features: Array) -> Array:
    """Each pixel's features at length 1, or 0 where none is active, in float32 at least."""
    features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    squares = jnp.sum(features**2, axis=-1, keepdims=True)
    # The root has no derivative at 0, where the original's gradient is NaN: one flat patch spoils a run.
    active = squares > 0
    length = jnp.where(active, jnp.sqrt(jnp.where(active, squares, 1.0)), 0.0)
    return features / (length + EPSILON)


def _positive(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype)
