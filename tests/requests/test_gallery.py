"""Files of images: numbered on, whole or not there, with what they were made from."""

import numpy as np
import pytest
from PIL import Image

from ldm_jax.images import enlarged, to_uint8
from ldm_jax.requests import gallery, infotext, png_settings

TEXT = 'a red cat\nSteps: 2, Sampler: ddim, Seed: 1'
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 4, 6, 3))


def test_files_are_numbered_on_from_those_that_are_there(tmp_path):
    first = gallery.save(tmp_path / 'a' / 'b', IMAGES, [TEXT] * 2, ['1-A red cat!', '2-'], scale=3)
    assert [path.name for path in first] == ['00001-1_a_red_cat.png', '00002-2.png']
    second = gallery.save(tmp_path / 'a' / 'b', IMAGES[:1], [TEXT], ['x' * 99])
    assert second[0].name == f'00003-{"x" * 60}.png'
    sheet = gallery.save_sheet(
        tmp_path / 'a' / 'b', IMAGES[None], ['a red cat'], ['seed 1', 'seed 2'], TEXT, scale=3
    )
    assert sheet.name == '00004-sheet.png'
    assert png_settings.read_file(first[0])['Seed'] == '1'
    with Image.open(first[0]) as image:
        assert image.size == (18, 12)


def test_a_sheet_shows_the_enlarged_images_and_says_what_it_is(tmp_path):
    path = gallery.save_sheet(tmp_path, IMAGES[None], ['a red cat'], ['seed 1', 'seed 2'], TEXT, scale=40)
    with Image.open(path) as image:
        found = np.asarray(image)
    for i in range(2):
        image = enlarged(to_uint8(IMAGES[i]), 40)
        tops = np.flatnonzero((found[:, i * 244] == image[0, 0]).all(-1))
        assert (found[tops[0] : tops[0] + 160, i * 244 : i * 244 + 240] == image).all()
    settings = png_settings.read_file(path)
    assert (settings.pop('Sheet'), settings) == ('1x2', infotext.read(TEXT))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(ValueError, match=r"cannot be written to .*file/out'"):
        gallery.prepare(tmp_path / 'file' / 'out')
