"""Pixels between files and networks: uint8 there, float in [-1, 1] here."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def to_float(image: np.ndarray) -> np.ndarray:
    """uint8 pixels to float32 in [-1, 1]."""
    return image.astype(np.float32) / 127.5 - 1


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] to uint8, clipped and rounded."""
    return np.clip(np.round((np.asarray(image, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


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
    target = pathlib.Path(path)
    partial = target.with_name(target.name + '.partial')
    Image.fromarray(pixels.repeat(scale, axis=0).repeat(scale, axis=1)).save(partial, 'PNG', pnginfo=info)
    partial.replace(target)
