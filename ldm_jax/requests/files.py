"""Images, masks, maps and layouts that a request names: by a path, as the bytes of a file, or as an array."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ldm_jax.images import fit, to_float
from ldm_jax.requests import infotext
from ldm_jax.requests.image_files import PARAMETERS, named, read_image
from ldm_jax.requests.request import MAX_PIXELS

Source = str | os.PathLike[str] | bytes | np.ndarray
LOSSY = ('JPEG', 'MPO')


def load_image(
    source: Source,
    size: tuple[int, int] | None = None,
    resize: str = 'crop',
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """An image as float32 [H, W, 3] in [-1, 1], upright, on white where it is transparent.

    A file of ours whose pixels were enlarged is read at the size that its text says.

    Args:
        source: any file that Pillow reads, where 16-bit grey becomes 8-bit and of an animation the first frame
            counts; or an array, uint8 [H, W], [H, W, 3] or [H, W, 4], or float [H, W, 3] in [-1, 1].
        size: (H, W); its own by default.
        resize: how it gets that size, see `images.fit`.
        max_pixels: see `image_files.read_image`.

    Raises FileNotFoundError or ValueError as `image_files.read_image`, and ValueError for pixels without a known
    scale, or a sheet of several images.
    """
    _check_any(source)
    if isinstance(source, np.ndarray) and np.issubdtype(source.dtype, np.floating):
        pixels = _floats(source)
    else:
        rgba = _eight_bit(source, max_pixels).convert('RGBA')
        white = Image.new('RGBA', rgba.size, 'white')
        pixels = to_float(np.asarray(Image.alpha_composite(white, rgba).convert('RGB')))
    return pixels if size is None else fit(pixels, size, resize)


def load_mask(source: Source, size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A mask as float32 [H, W, 1] in [0, 1]: 1 where the image is made anew, which is white in the file.

    A file with transparency is a mask by its opacity instead, which is how paint programs save a painted layer.

    Args:
        source: a file, or an array [H, W] or [H, W, 1] of bool, uint8 or floats in [0, 1].
        size: (H, W) of the image that it belongs to. A mask of a multiple of it was painted over an enlarged file
            of ours and is averaged; `fit` both alike afterwards.

    Raises FileNotFoundError or ValueError as `image_files.read_image`, and ValueError for a mask of another size.
    """
    _check_any(source)
    if isinstance(source, np.ndarray) and source.dtype != np.uint8:
        mask = _numbers(source, 'mask')
        if not ((mask >= 0) & (mask <= 1)).all():
            raise ValueError(
                f'The mask has values from {mask.min():g} to {mask.max():g}; they must be in [0, 1].'
            )
    else:
        image = _eight_bit(source, max_pixels)
        if image.has_transparency_data:
            alpha = image.convert('RGBA').getchannel('A')
            image = alpha if alpha.getextrema() != (255, 255) else image.convert('RGB')
        mask = np.asarray(image.convert('L'), np.float32)[..., None] / 255
    height, width = size
    factor = mask.shape[0] // height
    if factor > 1 and mask.shape[:2] == (factor * height, factor * width):
        mask = mask.reshape(height, factor, width, factor, 1).mean((1, 3))
    if mask.shape[:2] != tuple(size):
        raise ValueError(
            f'The mask {named(source)} is {_size(mask.shape)} and the image {_size(size)} (height x width). '
            "Save the mask at the image's size."
        )
    return mask


def load_depth(source: Source, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A depth map as float32 [H, W, 1] of any scale, larger where things are nearer.

    Args:
        source: a file of grey values, of 8 or 16 bits, 32-bit integers or floats; or an array [H, W] or [H, W, 1].

    Raises FileNotFoundError or ValueError as `image_files.read_image`, and ValueError for colours, values that are
    not finite, or a flat map.
    """
    _check_any(source)
    if isinstance(source, np.ndarray):
        depth = _numbers(source, 'depth map')
    else:
        depth = np.asarray(_grey(read_image(source, max_pixels), source, 'depth map'), np.float32)[..., None]
    if not np.isfinite(depth).all():
        raise ValueError(f'The depth map {named(source)} has values that are not finite.')
    if depth.min() == depth.max():
        raise ValueError(
            f'The depth map {named(source)} is {depth.min():g} everywhere: it has no depth to keep.'
        )
    return depth


def load_labels(source: Source, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A map of classes as int32 [H, W].

    Args:
        source: a file whose grey values or palette indices are classes, of 8 or 16 bits or more; or integers [H, W].

    Raises FileNotFoundError or ValueError as `image_files.read_image`, and ValueError for colours, negative numbers,
    or a format that changes values.
    """
    _check_any(source)
    if isinstance(source, np.ndarray):
        labels = source[..., 0] if source.ndim == 3 and source.shape[-1] == 1 else source
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f'A label map is an array [H, W] of integers; got {labels.dtype} {list(labels.shape)}.'
            )
    else:
        image = read_image(source, max_pixels)
        if image.format in LOSSY:
            raise ValueError(
                f'The label map {named(source)} is a JPEG, which changes values. Save it as PNG.'
            )
        labels = np.asarray(image if image.mode == 'P' else _grey(image, source, 'label map'))
        if np.issubdtype(labels.dtype, np.floating):
            raise ValueError(f'The label map {named(source)} holds floats; classes are integers.')
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f'The label map {named(source)} holds {labels.min()} to {labels.max()}; classes are numbered from 0 on.'
        )
    return labels.astype(np.int32)


def load_layout(
    source: str | os.PathLike[str] | bytes | Sequence,
) -> list[tuple[int, float, float, float, float]]:
    """Boxes (class, left, top, right, bottom), sides from 0 to 1, of a JSON file, its text or bytes, or a list of them.

    Raises FileNotFoundError, or ValueError for another form.
    """
    name = 'The layout'
    if isinstance(source, str) and source.lstrip().startswith('['):
        source = source.encode()
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        if not pathlib.Path(source).is_file():
            raise FileNotFoundError(
                f'No layout at {name!r}; give a JSON file, or rows as text: [[class, left, top, right, bottom], ...].'
            )
        source = pathlib.Path(source).read_bytes()
    try:
        found: Any = json.loads(source) if isinstance(source, bytes) else source
        return [_box(*box) for box in found]
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f'{name} is not a layout, which is JSON [[class, left, top, right, bottom], ...] with sides '
            f'from 0 to 1: {error}.'
        ) from None


def _check_any(source: Source) -> None:
    if isinstance(source, np.ndarray) and not source.size:
        raise ValueError(f'An array {list(source.shape)} is empty.')


def _eight_bit(source: Source, max_pixels: int) -> Image.Image:
    """The image in a file or a uint8 array, its 16-bit greys as 8-bit ones, at its own size where it was enlarged."""
    if isinstance(source, np.ndarray):
        grey = source[..., 0] if source.ndim == 3 and source.shape[-1] == 1 else source
        if (
            source.dtype != np.uint8
            or grey.ndim not in (2, 3)
            or (grey.ndim == 3 and grey.shape[-1] not in (3, 4))
        ):
            raise ValueError(
                'An image is an array uint8 [H, W], [H, W, 3] or [H, W, 4], or float [H, W, 3] in [-1, 1]; '
                f'got {source.dtype} {list(source.shape)}.'
            )
        return Image.fromarray(grey)
    image = read_image(source, max_pixels)
    if image.mode == 'F':
        raise ValueError(
            f'{named(source)} holds floats without a known scale. Save it with 8 or 16 bits a channel.'
        )
    if image.mode.startswith('I'):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError(
                f'{named(source)} holds integers from {values.min()} to {values.max()}, beyond 16 bits. '
                'Save it with 8 or 16 bits a channel.'
            )
        return Image.fromarray(np.round(values / 257).astype(np.uint8))
    return _at_own_size(image, named(source))


def _at_own_size(image: Image.Image, name: str) -> Image.Image:
    """An image of ours without the enlargement of its pixels, by the size that its text says."""
    text = image.info.get(PARAMETERS)
    settings = infotext.read(text) if isinstance(text, str) else {}
    if not settings.get('Version', '').startswith(infotext.OURS):
        return image
    if infotext.SHEET in settings:
        raise ValueError(f'{name} is a sheet of several images: give one of them.')
    width, _, height = settings.get(infotext.MADE, settings.get('Size', '')).partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width)):
        return image
    factor = image.width // int(width)
    if factor > 1 and image.size == (factor * int(width), factor * int(height)):
        return image.reduce(factor)
    return image


def _grey(image: Image.Image, source: Source, what: str) -> Image.Image:
    """An image of one channel. Raises ValueError for colours."""
    if image.mode in ('1', 'L', 'F') or image.mode.startswith('I'):
        return image.convert('L') if image.mode == '1' and what == 'depth map' else image
    red, green, blue = np.moveaxis(np.asarray(image.convert('RGB')), -1, 0)
    if (red != green).any() or (red != blue).any():
        raise ValueError(
            f'The {what} {named(source)} holds colours. Save it as grey values, one channel of 8 or 16 bits'
            f'{", or with a palette" if what == "label map" else ""}.'
        )
    return Image.fromarray(red)


def _floats(source: np.ndarray) -> np.ndarray:
    if source.ndim != 3 or source.shape[-1] != 3:
        raise ValueError(f'An image of floats is [H, W, 3] in [-1, 1]; got {list(source.shape)}.')
    if not (np.abs(source) <= 1 + 1e-6).all():
        raise ValueError(
            f'An image of floats is in [-1, 1]; got values from {source.min():g} to {source.max():g}.'
        )
    return source.astype(np.float32)


def _numbers(source: np.ndarray, what: str) -> np.ndarray:
    """An array of one channel as float32 [H, W, 1]."""
    array = source[..., None] if source.ndim == 2 else source
    if array.ndim != 3 or array.shape[-1] != 1 or array.dtype.kind not in 'buif':
        raise ValueError(
            f'A {what} is an array [H, W] or [H, W, 1]; got {source.dtype} {list(source.shape)}.'
        )
    return array.astype(np.float32)


def _box(label, left, top, right, bottom) -> tuple[int, float, float, float, float]:
    if isinstance(label, bool) or int(label) != label:
        raise ValueError(f'the class {label!r} is no integer')
    return int(label), float(left), float(top), float(right), float(bottom)


def _size(size: tuple[int, ...]) -> str:
    return f'{size[0]} x {size[1]}'
