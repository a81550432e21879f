"""A first stage that works on tiles, so that its memory is one tile's whatever the size of the image.

Tiles differ from the whole where a network looks further than its convolutions: norms and attention see one tile
alone. The larger the tiles, the nearer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.build import unknown
from ldm_jax.diffusion.multidiffusion import Windows
from ldm_jax.types import Array, PyTree

BLENDS = ('even', 'diffusers')


@dataclasses.dataclass(frozen=True)
class FirstStage:
    """Stands for a first stage: `apply` with the methods 'encode', 'latents' and 'decode', and `downscale`.

    model: the first stage (models.vae, vq, taesd).
    tile, overlap: in latents. What is no larger than a tile on either side is done in one piece.
    blend: 'even': all tiles are whole, the last of a row ends with it, and each fades linearly into the next; one
        compilation. 'diffusers': tiles begin at equal distances, those past the end are cut, and corners are
        blended twice over, as in AutoencoderKL.tiled_decode and tiled_encode; a compilation for each shape.
    A model that goes round (`wrap`) makes images without a seam in even tiles too.

    Raises ValueError for an overlap that leaves no way forward, an unknown blend, or diffusers' one with `wrap`.
    """

    model: nn.Module
    tile: int = 64
    overlap: int = 16
    blend: str = 'even'

    def __post_init__(self):
        Windows(self.tile, self.overlap)  # which says what is wrong
        if self.blend not in BLENDS:
            raise unknown('blend of tiles', self.blend, list(BLENDS))
        if self.blend == 'diffusers' and self.model.wrap:
            raise ValueError(
                f"diffusers' tiles do not go round an image, and the first stage should (wrap={self.model.wrap!r}). "
                "Take blend='even'."
            )

    @property
    def downscale(self) -> int:
        """Pixels per latent along each side."""
        return self.model.downscale

    def apply(self, variables: PyTree, x: Array, *args: Any, method: str) -> Array:
        """As model.apply, for images or latents x [B, H, W, C]; 'latents' takes eps [B, h, w, Z] too.

        Raises ValueError for another method, and what the model raises of one tile.
        """
        if method == 'latents':
            encoded = self.apply(variables, x, method='encode')
            return self.model.apply(variables, encoded, *args, method='draw')
        if method not in ('encode', 'decode'):
            raise unknown('method of a tiled first stage', method, ['encode', 'latents', 'decode'])

        def one(x, model=self.model):
            return model.apply(variables, x, *args, method=method)

        unit = self.downscale if method == 'encode' else 1
        tile, overlap = self.tile * unit, self.overlap * unit
        if max(x.shape[1:3]) <= tile:
            return one(x)
        jax.eval_shape(one, x)  # its complaints are of the image, not of a tile
        if self.blend == 'diffusers':
            return _cut_at_the_end(one, x, tile, overlap)
        # Tiles go round a seamless image; the model does where one tile is all of it.
        alone = ''.join(axis for axis in self.model.wrap if x.shape['yx'.index(axis) + 1] <= tile)
        model = self.model.clone(wrap=alone)
        windows = Windows(tile, overlap, 'ramp', self.model.wrap)
        return windows.average(lambda tiles: one(tiles[0], model)[None], x)


def _cut_at_the_end(function: Callable[[Array], Array], x: Array, tile: int, overlap: int) -> Array:
    """diffusers' tiles: each is blended with the one above, then with the one to its left, both blended before."""
    rows, columns = (range(0, side, tile - overlap) for side in x.shape[1:3])
    shapes = {}
    for y in rows:
        for left in columns:
            shape = min(tile, x.shape[1] - y), min(tile, x.shape[2] - left)
            shapes.setdefault(shape, []).append((y, left))
    done = {}
    for shape, corners in shapes.items():

        def one(corner, shape=shape):
            return function(jax.lax.dynamic_slice(x, (0, *corner, 0), (len(x), *shape, x.shape[-1])))

        done |= zip(corners, jax.lax.map(one, jnp.asarray(np.array(corners))), strict=True)

    step = tile - overlap
    first, outcome = min(tile, x.shape[1]), done[0, 0].shape[1]
    extent, kept = overlap * outcome // first, step * outcome // first
    lines = []
    for y in rows:
        line = []
        for left in columns:
            here = done[y, left]
            if y:
                here = _faded(done[y - step, left], here, extent, 1)
            if left:
                here = _faded(done[y, left - step], here, extent, 2)
            done[y, left] = here
            line.append(here[:, :kept, :kept])
        lines.append(jnp.concatenate(line, 2))
    return jnp.concatenate(lines, 1)


def _faded(before: Array, here: Array, extent: int, axis: int) -> Array:
    """`here` with its first rows, or columns, mixed with the last ones of the tile before it."""
    extent = min(extent, before.shape[axis], here.shape[axis])
    share = np.linspace(0, 1, extent, endpoint=False).reshape((-1, 1, 1) if axis == 1 else (-1, 1))
    end = jax.lax.slice_in_dim(before, before.shape[axis] - extent, None, axis=axis)
    start, rest = jnp.split(here, [extent], axis)
    return jnp.concatenate([end * (1 - share) + start * share, rest], axis).astype(here.dtype)
