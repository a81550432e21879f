"""Resizes to Inception's 299 x 299 as the implementations of FID have them, on the host in float32.

They differ in the second digit of an FID: whether pixels are points or squares, whether what lies between the samples
of a smaller image is averaged, and whether the result is rounded to uint8 (here never).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from ldm_jax.models.inception import SIZE


def tensorflow_bilinear(images: np.ndarray) -> np.ndarray:
    """TensorFlow 1's resize_bilinear, which is in the graph of 2015: corners as samples' places, no antialiasing.

    images [B, H, W, 3] -> float32 [B, 299, 299, 3] in the same range.
    """
    height, width = images.shape[1:3]

    def places(size):
        # In float32, as the graph computes them: 299 samples at multiples of size / 299.
        at = np.arange(SIZE, dtype=np.float32) * np.float32(size / SIZE)
        low = at.astype(np.int64)
        return low, np.minimum(low + 1, size - 1), at - low.astype(np.float32)

    return _bilinear(np.asarray(images, np.float32), places(height), places(width))


def torch_bilinear(images: np.ndarray) -> np.ndarray:
    """torch's interpolate(mode='bilinear', align_corners=False): squares as pixels, no antialiasing.

    images [B, H, W, 3] -> float32 [B, 299, 299, 3] in the same range.
    """
    height, width = images.shape[1:3]

    def places(size):
        at = (np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) * np.float32(size / SIZE) - np.float32(0.5)
        at = np.maximum(at, np.float32(0))
        low = np.minimum(at.astype(np.int64), size - 1)
        return low, np.minimum(low + 1, size - 1), at - low.astype(np.float32)

    return _bilinear(np.asarray(images, np.float32), places(height), places(width))


def pillow_bicubic(images: np.ndarray) -> np.ndarray:
    """Pillow's bicubic, antialiased, of each channel in float32, clipped to 0 .. 255, as clean-fid has it.

    images [B, H, W, 3] in 0 .. 255 -> float32 [B, 299, 299, 3].
    """
    channels = np.moveaxis(np.asarray(images, np.float32), -1, 1).reshape(-1, *images.shape[1:3])
    resized = [
        np.asarray(Image.fromarray(channel).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        for channel in channels
    ]
    stacked = np.stack(resized).reshape(len(images), -1, SIZE, SIZE)
    return np.moveaxis(stacked, 1, -1).clip(0, 255)


def _bilinear(images: np.ndarray, rows: tuple, columns: tuple) -> np.ndarray:
    """Images at places (sample below, above, share of the one above) of both axes."""
    low, high, share = rows
    a, b = images[:, low], images[:, high]

    def across(x):
        left, right, part = columns
        first = x[:, :, left]
        return first + (x[:, :, right] - first) * part[:, None]

    below = across(a)
    return below + (across(b) - below) * share[:, None, None]
