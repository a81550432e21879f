"""The images, masks and maps that a request names, read once: before any model is."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ldm_jax.images import fit
from ldm_jax.requests import files
from ldm_jax.requests.request import Request

Box = tuple[int, float, float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Pixels [H, W, 3] in [-1, 1] and what else a request names, each at the size that it has; None where it has none.

    mask: [H, W, 1] in [0, 1], of the size of image.
    mix: more images, of any sizes.
    depth: [H, W, 1] of any scale; labels: integers [H, W]; layout: boxes.
    resize: how images get another size, of images.RESIZES.
    """

    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    mix: Sequence[np.ndarray] = ()
    depth: np.ndarray | None = None
    labels: np.ndarray | None = None
    layout: Sequence[Box] | None = None
    resize: str = 'crop'

    def fitted(self, size: tuple[int, int] | None) -> np.ndarray:
        """The image at a size; at its own for None."""
        return self.image if size is None else fit(self.image, size, self.resize)

    def fitted_mask(self, size: tuple[int, int] | None) -> np.ndarray:
        """The mask, fitted as the image is."""
        return self.mask if size is None else fit(self.mask, size, self.resize)


def read(request: Request) -> Inputs:
    """The inputs of a request. Raises FileNotFoundError or ValueError for what cannot be read."""
    if request.mask is not None and request.init_image is None:
        raise ValueError('A mask says which part of an image is made anew: give the image too (init_image).')
    load = functools.partial(_load, most=request.max_pixels)
    image = load(request.init_image, files.load_image)
    mask = load(request.mask, files.load_mask, size=() if image is None else image.shape[:2])
    return Inputs(
        image,
        1 - mask if request.invert_mask and mask is not None else mask,
        [load(each, files.load_image) for each in request.mix or ()],
        load(request.depth, files.load_depth),
        load(request.label_map, files.load_labels),
        None if request.layout is None else files.load_layout(request.layout),
        request.resize,
    )


def _load(source: Any, loader: Callable[..., np.ndarray], most: int, **options: Any) -> np.ndarray | None:
    return None if source is None else loader(source, max_pixels=most, **options)
