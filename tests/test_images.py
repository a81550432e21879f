"""Pixels between files and networks."""

import numpy as np
from PIL import Image

from ldm_jax.images import contact_sheet, save_png, to_float, to_uint8


def test_every_pixel_value_survives_there_and_back():
    values = np.arange(256, dtype=np.uint8)
    assert (to_uint8(to_float(values)) == values).all()
    assert to_float(values).min() == -1
    assert to_float(values).max() == 1


def test_values_beyond_the_range_are_clipped():
    assert list(to_uint8(np.float32([-3, 3]))) == [0, 255]


def test_a_contact_sheet_puts_images_in_rows():
    images = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((1, 1, 4, 5, 3), np.uint8)
    sheet = contact_sheet(images, border=1)
    assert sheet.shape == (4 + 1 + 4, 5 + 1 + 5 + 1 + 5, 3)
    assert (sheet[5:, 6:11] == 4).all()
    assert (sheet[4] == 255).all()


def test_a_png_keeps_its_pixels_and_its_text(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    path = tmp_path / 'a.png'
    save_png(path, image, {'prompt': 'ein Apfel, 苹果'}, scale=2)
    with Image.open(path) as file:
        assert file.text == {'prompt': 'ein Apfel, 苹果'}
        assert (np.asarray(file)[::2, ::2] == image).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ['a.png']  # nothing partial is left behind
