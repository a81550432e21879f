"""A mask and the image with a hole, behind the latents: the network sees what it paints around.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from ldm_jax.build import unknown
from ldm_jax.conditioning.drop import pair, unless
from ldm_jax.conditioning.networks import Networks, to_float
from ldm_jax.types import Array, Cond, PyTree

PATCHES = 4  # rectangles of a drawn mask at most
FORMS = ('stable_diffusion', 'latent_diffusion')


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.concat: a mask at the latents' size, and the latents of the image outside of the mask.

    form: 'stable_diffusion' has grey in the hole, and the mask, 1 where there is something to paint, before the
        latents; 'latent_diffusion' (inpainting_big) has black, and a mask of -1 and 1 behind them.
    full_rate: share of the drawn masks that hide all of the image.

    Raises ValueError for another form.
    """

    drop_rate: float = 0.0
    form: str = 'stable_diffusion'
    full_rate: float = 0.25
    batch: ClassVar = (('image',),)
    optional: ClassVar = ('mask',)
    given: ClassVar = (('image', 'mask'),)
    requires: ClassVar = ()

    def __post_init__(self):
        if self.form not in FORMS:
            raise unknown('form of inpainting', self.form, list(FORMS))

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('concat',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'image' [B, H, W, 3], and 'mask' [B, H, W, 1]; or one to four rectangles are drawn for each."""
        image = batch['image']
        mask = batch['mask'] if 'mask' in batch else masks(keys, image.shape[1:3], self.full_rate)
        return Cond(concat=unless(drop, self._channels(networks, image, mask)))

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'image' [B, H, W, 3], 'mask' [B, H, W, 1], and 'eps' [B, h, w, Z] to sample the posterior with."""
        return pair(
            self.drop_rate,
            concat=self._channels(networks, given['image'], given['mask'], given.get('eps')),
        )

    def _channels(self, networks: Networks, image: Array, mask: Array, eps: Array | None = None) -> Array:
        image, hidden, factor = to_float(image), mask >= 0.5, networks.downscale
        small = hidden[:, ::factor, ::factor].astype(
            image.dtype
        )  # the nearest pixel, as these models are trained
        if self.form == 'stable_diffusion':
            return jnp.concatenate([small, networks.latents(jnp.where(hidden, 0.0, image), eps)], axis=-1)
        return jnp.concatenate(
            [networks.latents(jnp.where(hidden, -1.0, image), eps), 2 * small - 1], axis=-1
        )


def masks(keys: Array, size: tuple[int, int], full_rate: float) -> Array:
    """[B, H, W, 1] of zeros and ones: the union of 1 to PATCHES rectangles with sides up to half the image's."""
    h, w = size

    def one(key):
        corner, extent, count, full = jax.random.split(key, 4)
        count = jax.random.randint(count, (), 1, PATCHES + 1)
        extent = jax.random.uniform(extent, (PATCHES, 2), minval=0.1, maxval=0.5)
        corner = jax.random.uniform(corner, (PATCHES, 2)) * (1 - extent)
        y, x = (jnp.arange(h) + 0.5) / h, (jnp.arange(w) + 0.5) / w
        rows = (y >= corner[:, :1]) & (y < corner[:, :1] + extent[:, :1])  # [PATCHES, H]
        columns = (x >= corner[:, 1:]) & (x < corner[:, 1:] + extent[:, 1:])
        used = (jnp.arange(PATCHES) < count)[:, None, None]
        hole = jnp.any(rows[:, :, None] & columns[:, None, :] & used, axis=0)
        return (hole | jax.random.bernoulli(full, full_rate))[..., None].astype(jnp.float32)

    return jax.vmap(one)(keys)
