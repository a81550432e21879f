"""From the pictures of a file to those of a batch."""

from __future__ import annotations

import numpy as np
from PIL import Image


def square(image: Image.Image, size: int) -> np.ndarray:
    """The middle square of an image, on white where it is transparent, as uint8 [size, size, 3]."""
    rgba = image.convert('RGBA')
    side = min(rgba.size)
    left, top = (rgba.width - side) // 2, (rgba.height - side) // 2
    rgba = rgba.crop((left, top, left + side, top + side))
    rgb = Image.alpha_composite(Image.new('RGBA', rgba.size, 'white'), rgba).convert('RGB')
    if side != size:
        rgb = rgb.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(rgb)
