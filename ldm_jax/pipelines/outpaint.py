"""An image continued beyond its sides after a prompt: inpainting of a wider canvas.

As A1111's "poor man's outpainting": the border is masked, and a seam inside the image with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.pipelines.inpaint import inpaint
from ldm_jax.pipelines.start import each_image


def outpaint(
    pipeline: Pipeline,
    prompts: str | Sequence[str],
    images: np.ndarray,
    negative_prompts: str | Sequence[str] = '',
    *,
    left: int = 0,
    right: int = 0,
    top: int = 0,
    bottom: int = 0,
    content: str = 'fill',
    blur: float = 4.0,
    **options: Any,
) -> np.ndarray:
    """Images [B, top + H + bottom, left + W + right, 3] in [-1, 1], one for each prompt.

    Args:
        images: [H, W, 3] or [B, H, W, 3] in [-1, 1].
        left, right, top, bottom: pixels to add to each side, in all such that the sides are multiples of what the
            model needs.
        content: what the border begins with at a strength below 1, as in inpaint; 'original' is here the image's
            edge, repeated.
        blur: standard deviation in pixels of the mask's soft edge, which reaches 4.5 times as far into the image.
        options: of inpaint: strength, keep, paste, seed, sampling.
        prompts, negative_prompts: as in text_to_image.

    Raises ValueError where nothing is added or something less than nothing, and as inpaint.
    """
    batch = 1 if isinstance(prompts, str) else len(prompts)
    canvas, mask = extended(each_image(images, batch), (top, bottom), (left, right), blur)
    return inpaint(pipeline, prompts, canvas, mask, negative_prompts, content=content, blur=blur, **options)


def extended(
    images: np.ndarray, rows: tuple[int, int], columns: tuple[int, int], blur: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Images [B, H, W, 3] with their edges repeated outwards, and the mask [H', W', 1] of the part to paint.

    Args:
        rows, columns: pixels to add before and behind.
        blur: that the mask will get: it overlaps the image by twice as much where there is a border.

    Raises ValueError for negative numbers, for none at all, or where the overlap leaves nothing of the image.
    """
    border = (*rows, *columns)
    if min(border) < 0 or not any(border):
        raise ValueError(
            f'top, bottom, left, right are {list(border)}: give pixels to add to at least one side, none negative.'
        )
    overlap = round(2 * blur)
    canvas = np.pad(images, ((0, 0), rows, columns, (0, 0)), mode='edge')
    mask = np.ones((*canvas.shape[1:3], 1), np.float32)
    spans = []
    for (before, behind), length in zip((rows, columns), images.shape[1:3], strict=True):
        low = before + (overlap if before else 0)
        high = before + length - (overlap if behind else 0)
        if low >= high:
            raise ValueError(
                f'A blur of {blur:g} overlaps the image by {overlap} pixels, which is all of its {length}. Blur less.'
            )
        spans.append(slice(low, high))
    mask[tuple(spans)] = 0
    return canvas, mask
