"""Pixels between files and networks: uint8 there, float in [-1, 1] here; and other sizes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm_jax.atomic import atomic_write
from ldm_jax.build import unknown

RESIZES = ('crop', 'just', 'fill')


def to_float(image: Any) -> Any:
    """uint8 pixels, of numpy or JAX, to float32 in [-1, 1]."""
    return image.astype(np.float32) / 127.5 - 1


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] to uint8, clipped and rounded."""
    return np.clip(np.round((np.asarray(image, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def enlarged(image: np.ndarray, factor: int) -> np.ndarray:
    """Images [..., H, W, C] whose pixels are factor x factor each."""
    return image.repeat(factor, axis=-3).repeat(factor, axis=-2)


def contact_sheet(images: np.ndarray, border: int = 1) -> np.ndarray:
    """Rows and columns of images [R, C, H, W, 3] as one [R (H + border) - border, C (W + border) - border, 3]."""
    rows, columns, h, w, channels = images.shape
    white = np.asarray(255 if images.dtype == np.uint8 else 1, images.dtype)
    padded = np.pad(images, ((0, 0), (0, 0), (0, border), (0, border), (0, 0)), constant_values=white)
    sheet = padded.transpose(0, 2, 1, 3, 4).reshape(rows * (h + border), columns * (w + border), channels)
    return sheet[: rows * (h + border) - border, : columns * (w + border) - border]


def save_png(
    path: str | os.PathLike, image: np.ndarray, text: Mapping[str, str] | None = None, scale: int = 1
) -> None:
    """Writes an image [H, W, 3], uint8 or in [-1, 1], as a PNG that appears whole or not at all.

    Args:
        text: key -> value, kept in the file as PNG text.
        scale: each pixel becomes scale x scale of them.
    """
    pixels = image if image.dtype == np.uint8 else to_uint8(image)
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    with atomic_write(path) as partial:
        Image.fromarray(enlarged(pixels, scale)).save(partial, 'PNG', pnginfo=info)


def fit(
    pixels: np.ndarray,
    size: tuple[int, int],
    resize: str = 'crop',
    scale: Callable[[np.ndarray, tuple[int, int]], np.ndarray] | None = None,
) -> np.ndarray:
    """Pixels or mask [H, W, C] at another size (H', W'), by Lanczos' filter and inside their former range.

    Args:
        resize: 'just' stretches; 'crop' scales until it covers the size and cuts the middle out; 'fill' scales
            until it fits inside and repeats its edges.
        scale: stretches pixels to a size; `resample` by default.

    Raises ValueError for another resize, or a size below 1.
    """
    if resize not in RESIZES:
        raise unknown('resize', resize, list(RESIZES))
    height, width = size
    if min(size) < 1:
        raise ValueError(f'Size {size[0]} x {size[1]} (height x width) is empty.')
    h, w = pixels.shape[:2]
    if (h, w) == (height, width):
        return pixels
    scale = resample if scale is None else scale
    if resize == 'just':
        return scale(pixels, size)
    covers = width * h <= w * height  # scaled to the height, the image is wide enough
    by_height = covers == (resize == 'crop')
    scaled = (height, max(w * height // h, 1)) if by_height else (max(h * width // w, 1), width)
    pixels = scale(pixels, scaled)
    top, left = (of // 2 - to // 2 for of, to in zip(scaled, size, strict=True))
    if resize == 'crop':
        return pixels[top : top + height, left : left + width]
    below, right = height - scaled[0] + top, width - scaled[1] + left
    return np.pad(pixels, ((-top, below), (-left, right), (0, 0)), mode='edge')


def resample(
    pixels: np.ndarray, size: tuple[int, int], method: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    """[H, W, C] stretched to [*size, C] and clipped to the range that it had."""
    height, width = size
    channels = [
        np.asarray(Image.fromarray(channel).resize((width, height), method))
        for channel in np.moveaxis(np.asarray(pixels, np.float32), -1, 0)
    ]
    return np.clip(np.stack(channels, -1), pixels.min(), pixels.max())
