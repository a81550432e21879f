"""Images and masks from files, at the size that a pipeline works at."""

from __future__ import annotations

import os
import pathlib
import warnings

import numpy as np
from PIL import Image, ImageOps

from ldm_jax.images import fit, to_float


def read_image(path: str | os.PathLike) -> Image.Image:
    """The Pillow image in a file, upright, with the texts of a PNG among its `info`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, cut off, or beyond Pillow's limits for pixels and compressed texts.
    """
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f'No image at {os.fspath(path)!r}.')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return ImageOps.exif_transpose(image)  # which loads it: texts behind the pixels are read then
    except Image.UnidentifiedImageError:
        raise ValueError(f'{path} is not an image that Pillow can read.') from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(
            f'{path} has more than {Image.MAX_IMAGE_PIXELS} pixels, which is refused. Scale it down first.'
        ) from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's for a cut-off or broken file
        raise ValueError(f'{path} cannot be read: {error}.') from error


def load_image(
    path: str | os.PathLike, size: tuple[int, int] | None = None, resize: str = 'crop'
) -> np.ndarray:
    """An image as float32 [H, W, 3] in [-1, 1], upright, on white where it is transparent.

    Args:
        path: any file that Pillow reads; 16-bit grey becomes 8-bit, of an animation the first frame counts.
        size: (H, W); its own by default.
        resize: how it gets that size, see `fit`.

    Raises FileNotFoundError or ValueError as `read_image`, and ValueError for pixels without a known scale.
    """
    rgba = _eight_bit(path).convert('RGBA')
    white = Image.new('RGBA', rgba.size, 'white')
    pixels = to_float(np.asarray(Image.alpha_composite(white, rgba).convert('RGB')))
    return pixels if size is None else fit(pixels, size, resize)


def load_mask(path: str | os.PathLike, size: tuple[int, int]) -> np.ndarray:
    """A mask as float32 [H, W, 1] in [0, 1]: 1 where the image is made anew, which is white in the file.

    A file with transparency is a mask by its opacity instead, which is how paint programs save a painted layer.

    Args:
        size: (H, W) of the image that it belongs to, as it lies in its file; `fit` both alike afterwards.

    Raises FileNotFoundError or ValueError as `read_image`, and ValueError for a mask of another size.
    """
    image = _eight_bit(path)
    if image.has_transparency_data:
        alpha = image.convert('RGBA').getchannel('A')
        image = alpha if alpha.getextrema() != (255, 255) else image.convert('RGB')
    mask = np.asarray(image.convert('L'), np.float32)[..., None] / 255
    if mask.shape[:2] != tuple(size):
        raise ValueError(
            f'The mask {path} is {_size(mask.shape)} and the image {_size(size)} (height x width). '
            "Save the mask at the image's size."
        )
    return mask


def _eight_bit(path: str | os.PathLike) -> Image.Image:
    """The image in a file, its 16-bit greys as 8-bit ones."""
    image = read_image(path)
    if image.mode == 'F':
        raise ValueError(f'{path} holds floats without a known scale. Save it with 8 or 16 bits a channel.')
    if not image.mode.startswith('I'):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(
            f'{path} holds integers from {values.min()} to {values.max()}, beyond 16 bits. '
            'Save it with 8 or 16 bits a channel.'
        )
    return Image.fromarray(np.round(values / 257).astype(np.uint8))


def _size(size: tuple[int, ...]) -> str:
    return f'{size[0]} x {size[1]}'
