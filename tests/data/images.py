"""Small images for the sources to find, told apart by their colour, and broken ones."""

import io

import numpy as np
from PIL import Image


def colour(i):
    return (40 * i % 256, 90 * i % 256, 255 - 30 * i % 256)


def image(i, size=(12, 8), kind='PNG'):
    """The bytes of a file of one colour; size is (width, height)."""
    file = io.BytesIO()
    Image.new('RGB', size, colour(i)).save(file, kind)
    return file.getvalue()


BROKEN = image(0)[:40]


def assert_shows(image, i, shape=(8, 12, 3)):
    """An image is image(i), whole unless another shape is named."""
    assert image.shape == shape
    assert image.dtype == np.uint8
    assert (image == colour(i)).all()
