"""Image files by Pillow: whole and upright or one error that names them, whatever a decoder runs into."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from ldm_jax.requests.request import MAX_PIXELS

PARAMETERS = 'parameters'  # keyword of the text that the web UI keeps in its files
USER_COMMENT = (0x8769, 0x9286)  # where it keeps it in JPEG and WebP, which have no such texts: in EXIF
_PILLOW = threading.Lock()  # its limit of pixels and the filters of warnings belong to the whole process


def read_image(source: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The Pillow image in a file, upright, with the texts of a PNG among its `info`.

    Args:
        source: a path, or the bytes of a file.
        max_pixels: width x height that are taken; the header is asked before any pixel is decoded.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, damaged, or with more pixels.
    """
    name = named(source)
    if not isinstance(source, bytes) and not pathlib.Path(source).is_file():
        raise FileNotFoundError(f'No image at {name!r}.')
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with _errors(name, max_pixels), Image.open(file) as image:
        if image.width * image.height > max_pixels:
            raise Image.DecompressionBombError
        form = image.format
        upright = ImageOps.exif_transpose(image)  # which loads it: texts behind the pixels are read then
        upright.format = form
        return upright


def texts(source: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS) -> dict[str, str]:
    """The texts in an image file: keyword -> text. EXIF's user comment counts as 'parameters', as the web UI has it.

    Raises FileNotFoundError or ValueError as `read_image`.
    """
    image = read_image(source, max_pixels)
    found = {
        key: value for key, value in image.info.items() if isinstance(key, str) and isinstance(value, str)
    }
    with _errors(named(source), max_pixels):
        comment = image.getexif().get_ifd(USER_COMMENT[0]).get(USER_COMMENT[1], b'')
    if isinstance(comment, bytes) and comment.startswith(b'UNICODE\0'):
        order = 'utf-16-le' if comment[9:10] == b'\0' else 'utf-16-be'
        found.setdefault(PARAMETERS, comment[8:].decode(order, 'replace'))
    elif isinstance(comment, bytes) and comment.startswith(b'ASCII\0\0\0'):
        found.setdefault(PARAMETERS, comment[8:].decode('utf-8', 'replace'))
    return found


def named(source: object) -> str:
    """Name of an image in messages: its path, or the form that it was given in. Raises ValueError for other objects."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, bytes):
        return f'image of {len(source)} bytes'
    if isinstance(source, np.ndarray):
        return f'array {list(source.shape)}'
    raise ValueError(f'An image is a path, the bytes of a file or an array; got {source!r:.80}.')


@contextlib.contextmanager
def _errors(name: str, max_pixels: int) -> Iterator[None]:
    """Turns whatever a decoder raises into ValueError, and sets Pillow's limit of pixels meanwhile.

    That limit also holds for images that lie inside of others, as in ICO.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of EXIF that is cut off, say, which nobody here reads
        warnings.simplefilter('error', Image.DecompressionBombWarning)
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            yield
        except Image.UnidentifiedImageError:
            raise ValueError(f'{name} is not an image that Pillow can read.') from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ValueError(
                f'{name} has more than {max_pixels} pixels (width x height). Scale it down, or raise max_pixels.'
            ) from None
        except (
            Exception
        ) as error:  # any decoder's own: RuntimeError, struct.error, KeyError, MemoryError, ...
            raise ValueError(f'{name} cannot be read: {str(error) or type(error).__name__}.') from error
        finally:
            Image.MAX_IMAGE_PIXELS = before
