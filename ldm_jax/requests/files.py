"""Images, masks, depth maps and label maps from what a request names: a path, the bytes of a file, or an array."""

from __future__ import annotations

import io
import os
import pathlib
import warnings

import numpy as np
from PIL import Image, ImageOps

from ldm_jax.images import fit, to_float

File = str | os.PathLike | bytes  # a path, or what is in the file
Source = File | np.ndarray


def read_image(file: File) -> Image.Image:
    """The Pillow image in a file, upright, with the texts of a PNG among its `info`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, cut off, or beyond Pillow's limits for pixels and compressed texts.
    """
    path = named(file)
    if not isinstance(file, bytes) and not pathlib.Path(file).is_file():
        raise FileNotFoundError(f'No image at {os.fspath(file)!r}.')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
                return ImageOps.exif_transpose(image)  # which loads it: texts behind the pixels are read then
    except Image.UnidentifiedImageError:
        raise ValueError(f'{path} is not an image that Pillow can read.') from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(
            f'{path} has more than {Image.MAX_IMAGE_PIXELS} pixels, which is refused. Scale it down first.'
        ) from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's for a cut-off or broken file
        raise ValueError(f'{path} cannot be read: {error}.') from error


def named(source: Source) -> str:
    """A source in messages."""
    if isinstance(source, bytes):
        return f'the image of {len(source)} bytes'
    return f'the array {list(source.shape)}' if isinstance(source, np.ndarray) else os.fspath(source)


def load_image(source: Source, size: tuple[int, int] | None = None, resize: str = 'crop') -> np.ndarray:
    """An image as float32 [H, W, 3] in [-1, 1], upright, on white where it is transparent.

    Args:
        source: any file that Pillow reads, in which 16-bit grey becomes 8-bit, and of an animation the first frame
            counts; or an array [H, W, 3], uint8 or in [-1, 1].
        size: (H, W); its own by default.
        resize: how it gets that size, see `fit`.

    Raises FileNotFoundError or ValueError as `read_image`, and ValueError for pixels without a known scale.
    """
    if isinstance(source, np.ndarray):
        pixels = _array(source, 3, (-1, 1))
    else:
        rgba = _eight_bit(source).convert('RGBA')
        white = Image.new('RGBA', rgba.size, 'white')
        pixels = to_float(np.asarray(Image.alpha_composite(white, rgba).convert('RGB')))
    return pixels if size is None else fit(pixels, size, resize)


def load_mask(source: Source, size: tuple[int, int]) -> np.ndarray:
    """A mask as float32 [H, W, 1] in [0, 1]: 1 where the image is made anew, which is white in the file.

    A file with transparency is a mask by its opacity instead, which is how paint programs save a painted layer. An
    array is [H, W] or [H, W, 1], uint8 or in [0, 1].

    Args:
        size: (H, W) of the image that it belongs to, as it lies in its file; `fit` both alike afterwards.

    Raises FileNotFoundError or ValueError as `read_image`, and ValueError for a mask of another size.
    """
    if isinstance(source, np.ndarray):
        mask = _array(source, 1, (0, 1))
    else:
        image = _eight_bit(source)
        if image.has_transparency_data:
            alpha = image.convert('RGBA').getchannel('A')
            image = alpha if alpha.getextrema() != (255, 255) else image.convert('RGB')
        mask = np.asarray(image.convert('L'), np.float32)[..., None] / 255
    if mask.shape[:2] != tuple(size):
        raise ValueError(
            f'The mask {named(source)} is {_size(mask.shape)} and the image {_size(size)} (height x width). '
            "Save the mask at the image's size."
        )
    return mask


def load_depth(source: Source) -> np.ndarray:
    """A depth map as float32 [H, W, 1] of any scale, larger where things are nearer.

    A file holds one grey channel of 8, 16 or 32 bits, integers or floats. An array is [H, W] or [H, W, 1].

    Raises FileNotFoundError or ValueError as `read_image`, and ValueError for colours, transparency, values that are
    not finite, or a map that is flat.
    """
    if isinstance(source, np.ndarray):
        values = source[..., 0] if source.ndim == 3 and source.shape[-1] == 1 else source
    else:
        values = _channel(source, 'a depth map', ('L', 'F', 'I'))
    depth = np.asarray(values, np.float32)
    if depth.ndim != 2:
        raise ValueError(f'A depth map has one channel, [H, W]; {named(source)} has {list(depth.shape)}.')
    if not np.isfinite(depth).all():
        raise ValueError(f'{named(source)} has values that are not finite. Give the far distance a number.')
    if depth.min() == depth.max():
        raise ValueError(f'{named(source)} is {depth.min():g} everywhere: it has no depth to keep.')
    return depth[..., None]


def load_labels(source: Source) -> np.ndarray:
    """A label map as int32 [H, W]: the class of each pixel.

    A file holds grey values of 8 or 16 bits or indices of a palette, whose colours mean nothing. An array is [H, W],
    integers.

    Raises FileNotFoundError or ValueError as `read_image`, and ValueError for colours, fractions or negative numbers.
    """
    modes = ('1', 'L', 'P', 'I')
    labels = source if isinstance(source, np.ndarray) else _channel(source, 'a label map', modes)
    if labels.ndim != 2 or labels.dtype.kind not in 'iub':
        raise ValueError(
            f'A label map holds integers [H, W]; {named(source)} holds {labels.dtype} {list(labels.shape)}.'
        )
    labels = labels.astype(np.int32)
    if labels.min() < 0:
        raise ValueError(f'{named(source)} holds {labels.min()}; classes are numbered from 0 on.')
    return labels


def _channel(file: File, what: str, modes: tuple[str, ...]) -> np.ndarray:
    """The values [H, W] in a file of one channel, unscaled."""
    image = read_image(file)
    mode = 'I' if image.mode.startswith('I') else image.mode
    if mode not in modes:
        forms = {'1': '1-bit', 'L': '8-bit grey', 'P': 'palette', 'I': '16-bit grey', 'F': '32-bit float'}
        raise ValueError(
            f'{named(file)} has the channels {"".join(image.getbands())} (Pillow mode {image.mode}); {what} has one: '
            f'save it as {", ".join(forms[each] for each in modes)}.'
        )
    return np.asarray(image)


def _array(array: np.ndarray, channels: int, span: tuple[int, int]) -> np.ndarray:
    """An array [H, W, channels], uint8 or already in the span, as float32 in the span."""
    array = array[..., None] if channels == 1 and array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] != channels:
        raise ValueError(f'Expected an array [H, W, {channels}]; got {list(array.shape)}.')
    low, high = span
    if array.dtype == np.uint8:
        return (low + (high - low) * (array.astype(np.float32) / 255)).astype(np.float32)
    if array.dtype.kind != 'f' or not ((array >= low) & (array <= high)).all():
        raise ValueError(
            f'An array [H, W, {channels}] holds uint8, or floats from {low} to {high}; got {array.dtype} from '
            f'{array.min()} to {array.max()}.'
        )
    return array.astype(np.float32)


def _eight_bit(file: File) -> Image.Image:
    """The image in a file, its 16-bit greys as 8-bit ones."""
    path, image = named(file), read_image(file)
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
