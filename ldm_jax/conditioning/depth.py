"""A depth map behind the latents: the shapes of things stay.

Ref: Rombach et al. 2022, arXiv:2112.10752; stabilityai/stable-diffusion-2-depth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import Networks
from ldm_jax.types import Array, Cond, PyTree


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.concat: one channel, from -1, the farthest point of an image, to 1, its nearest."""

    drop_rate: float = 0.0
    batch: ClassVar = (('depth',),)
    optional: ClassVar = ()
    given: ClassVar = batch
    requires: ClassVar = ()

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('concat',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'depth' [B, H, W, 1] at the images' size, of any scale, larger where things are nearer."""
        depth = batch['depth']
        small = resized(depth, tuple(side // networks.downscale for side in depth.shape[1:3]))
        return Cond(concat=unless(drop, normalized(small)))

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'depth' [B, h, w, 1] at the latents' size (`resized`), of any scale."""
        return pair(self.drop_rate, concat=normalized(given['depth']))


def normalized(depths: Array) -> Array:
    """Depth maps [B, h, w, 1], each stretched to -1 .. 1; a flat one is -1."""
    low, high = (f(depths, axis=(1, 2, 3), keepdims=True) for f in (jnp.min, jnp.max))
    return 2 * (depths - low) / jnp.where(high > low, high - low, 1) - 1


def resized(depths: Array, size: tuple[int, int]) -> Array:
    """Depth maps [B, H, W, 1] at another size (h, w), as torch's bicubic interpolation without antialiasing.

    Keys' cubic with a = -0.75 at pixel centres, edges repeated: the published model's maps were made so in training.
    """
    depths = jnp.asarray(depths, jnp.float32)
    for axis, length in zip((1, 2), size, strict=True):
        depths = _bicubic(depths, axis, length)
    return depths


def _bicubic(a: Array, axis: int, length: int) -> Array:
    sharpness = -0.75
    centres = (np.arange(length) + 0.5) * a.shape[axis] / length - 0.5
    first = np.floor(centres).astype(int) - 1
    made = 0.0
    for tap in range(4):
        d = np.abs(centres - first - tap)
        near = ((sharpness + 2) * d - (sharpness + 3)) * d * d + 1
        far = ((d - 5) * d + 8) * d * sharpness - 4 * sharpness
        weight = np.where(d <= 1, near, far).astype(np.float32)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(a.ndim)])
        made = made + weight * jnp.take(a, np.clip(first + tap, 0, a.shape[axis] - 1), axis)
    return made
