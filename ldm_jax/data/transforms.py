"""Decoding, cropping and scaling of images: from bytes in a file to pixels of a batch."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ldm_jax.data.corrupt import Corrupt

Encoded = bytes | np.ndarray  # of a file, or pixels uint8 [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]

SUFFIXES = ('.avif', '.bmp', '.gif', '.jpeg', '.jpg', '.jxl', '.png', '.ppm', '.tif', '.tiff', '.webp')


def decode(data: Encoded, name: str) -> Image.Image:
    """An image as RGB, upright, on white where it is transparent.

    16-bit grey becomes 8-bit; of an animation the first frame counts. Raises Corrupt, with the name, when the
    data are cut off, broken, no image at all, or beyond Pillow's limit for pixels.
    """
    with _corrupt(name), _open(data) as image:
        if not isinstance(data, np.ndarray):
            image = ImageOps.exif_transpose(image)  # which loads it
        if image.mode.startswith('I;16') or image.mode == 'I':  # Pillow would clip these at 255
            image = Image.fromarray((np.asarray(image, np.uint32) >> 8).clip(0, 255).astype(np.uint8))
        if image.mode == 'F':
            raise Corrupt(name, 'its pixels are floats of unknown scale')
        if image.mode == 'RGB' and 'transparency' not in image.info:
            return image
        rgba = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', rgba.size, 'white'), rgba).convert('RGB')


def dimensions(data: Encoded, name: str) -> tuple[int, int]:
    """(height, width) of an image, upright, from its header alone. Raises Corrupt when that cannot be read."""
    with _corrupt(name), _open(data) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


def square(image: Image.Image, size: int) -> np.ndarray:
    """The middle square of an RGB image, as uint8 [size, size, 3]."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    if side != size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image)


def crop(
    pixels: np.ndarray,
    target: tuple[int, int],
    rng: np.random.Generator | None = None,
    random: bool = True,
    flip: bool = False,
    min_share: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """A window of the target's size out of an image that is scaled until it just covers it, or further.

    Args:
        pixels: uint8 [H, W, 3].
        target: (h, w) of the window.
        rng: draws the window and the mirroring; without one nothing is random.
        random: the window lies anywhere; otherwise in the middle.
        flip: the image is mirrored left and right half of the time.
        min_share: the least that the window shows of the shorter side; with less than 1 the generator draws it.

    Returns:
        uint8 [h, w, 3], and SDXL's six numbers int32 [6]: height and width of the original, top and left of the
        window in the scaled (and mirrored) image, h and w. Ref: Podell et al. 2023, arXiv:2307.01952, section 2.2.
    """
    height, width = pixels.shape[:2]
    h, w = target
    mirrored = (
        rng is not None and rng.random() < 0.5
    )  # drawn in any case, so that flip does not move the windows
    share = 1.0 if rng is None or min_share == 1 else rng.uniform(min_share, 1)
    scale = max(h / height, w / width) / share
    scaled = max(h, round(height * scale)), max(w, round(width * scale))
    image = Image.fromarray(pixels)
    if scaled != (height, width):
        image = image.resize(scaled[::-1], Image.Resampling.LANCZOS)
    spare = scaled[0] - h, scaled[1] - w
    top, left = spare[0] // 2, spare[1] // 2
    if rng is not None:
        if random:
            top, left = (int(rng.integers(0, room + 1)) for room in spare)
        if flip and mirrored:
            image = ImageOps.mirror(image)
    window = np.asarray(image.crop((left, top, left + w, top + h)))
    return window, np.array([height, width, top, left, h, w], np.int32)


def _open(data: Encoded) -> Image.Image:
    if isinstance(data, np.ndarray):
        return Image.fromarray(data[..., 0] if data.ndim == 3 and data.shape[-1] == 1 else data)
    return Image.open(io.BytesIO(data))


@contextmanager
def _corrupt(name: str) -> Iterator[None]:
    """Every way in which Pillow fails on a broken file, as Corrupt."""
    try:
        yield
    except Corrupt:
        raise
    except Image.UnidentifiedImageError:
        raise Corrupt(name, 'not an image that Pillow can read') from None
    except Image.DecompressionBombError:
        raise Corrupt(name, f'more than {2 * Image.MAX_IMAGE_PIXELS} pixels') from None
    except (
        Exception
    ) as error:  # of its plugins any: OSError, SyntaxError, struct.error, RuntimeError, MemoryError ...
        raise Corrupt(name, str(error) or type(error).__name__) from None
