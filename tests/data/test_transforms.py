"""Images of files: upright, on white, cut; broken ones are named, whatever is wrong with them."""

import contextlib
import io
import pathlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from ldm_jax.data import transforms
from ldm_jax.data.corrupt import Corrupt

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 30, 3), np.uint8)


def encoded(image, kind='PNG', **settings):
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def test_pixels_come_back_and_an_array_counts_as_an_image():
    data = encoded(Image.fromarray(PIXELS))
    np.testing.assert_array_equal(transforms.decode(data, 'x'), PIXELS)
    np.testing.assert_array_equal(transforms.decode(PIXELS, 'x'), PIXELS)
    grey = PIXELS[..., :1]
    np.testing.assert_array_equal(transforms.decode(grey, 'x'), np.repeat(grey, 3, axis=2))
    assert transforms.dimensions(data, 'x') == transforms.dimensions(PIXELS, 'x') == (20, 30)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_turned_photograph_is_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(PIXELS), exif=exif)
    # What the EXIF standard says row 0 and column 0 of the stored image are, when it is upright.
    upright = {
        1: PIXELS, 2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2), 6: np.rot90(PIXELS, -1), 7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PIXELS),
    }[orientation]  # fmt: skip
    np.testing.assert_array_equal(transforms.decode(data, 'x'), upright)
    assert transforms.dimensions(data, 'x') == upright.shape[:2]


def test_transparency_is_white_in_every_way_a_file_may_have_it():
    clear = Image.new('RGBA', (4, 4), (255, 0, 0, 0))
    palette = Image.new('P', (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    for data in (
        encoded(clear),
        encoded(clear, 'WEBP', lossless=True),
        encoded(palette, transparency=1),
        encoded(Image.new('RGB', (4, 4), (9, 9, 9)), transparency=(9, 9, 9)),
        encoded(Image.new('LA', (4, 4), (7, 0))),
    ):
        assert (np.asarray(transforms.decode(data, 'x')) == 255).all()


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    image = np.asarray(transforms.decode(encoded(Image.fromarray(values)), 'x'))
    assert image[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.filterwarnings('ignore::UserWarning')  # Pillow's, about metadata that make no sense
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'TIFF'])
def test_a_broken_file_is_corrupt_and_never_another_error(kind):
    data = encoded(Image.fromarray(PIXELS), kind)
    damaged = [data[: len(data) * part // 10] for part in range(9)]
    for _ in range(200):
        bad = bytearray(data)
        for place in RNG.integers(0, min(len(data), 300), 3):
            bad[place] = RNG.integers(0, 256)
        damaged.append(bytes(bad))
    refused = 0
    for bad in damaged:
        for read in (transforms.decode, transforms.dimensions):
            with contextlib.suppress(Corrupt):
                read(bad, 'x.png')
                continue
            refused += 1
    assert refused > 10
    with pytest.raises(Corrupt, match=r'x\.png: .+'):
        transforms.decode(data[: len(data) // 2], 'x.png')


def test_square_is_the_middle():
    np.testing.assert_array_equal(transforms.square(Image.fromarray(PIXELS), 20), PIXELS[:, 5:25])


def ramp(height, width):
    """Row and column numbers as red and green."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.zeros_like(x)], axis=-1).astype(np.uint8)


def test_a_window_lies_where_its_numbers_say():
    image, places = ramp(40, 60), set()
    for seed in range(60):
        window, size = transforms.crop(image, (20, 40), np.random.default_rng(seed))
        # 40 x 60 covers 20 x 40 at 2 / 3: 27 x 40.
        assert window.shape == (20, 40, 3)
        assert size[[0, 1, 4, 5]].tolist() == [40, 60, 20, 40]
        assert size[3] == 0
        assert 0 <= size[2] <= 7
        places.add(int(size[2]))
        assert abs(float(window[10, 20, 0]) - (size[2] + 10.5) * 40 / 27 + 0.5) < 1
    assert places == set(range(8))


def test_mirroring_happens_half_of_the_time_and_does_not_move_the_windows():
    image, mirrored = ramp(30, 30), 0
    for seed in range(200):
        window, size = transforms.crop(image, (10, 30), np.random.default_rng(seed), flip=True)
        plain, same = transforms.crop(image, (10, 30), np.random.default_rng(seed))
        assert size.tolist() == same.tolist()
        if (window != plain).any():
            mirrored += 1
            np.testing.assert_array_equal(window, plain[:, ::-1])
    assert 70 < mirrored < 130


def test_without_randomness_the_window_is_in_the_middle():
    window, size = transforms.crop(ramp(30, 50), (30, 20))
    np.testing.assert_array_equal(window, ramp(30, 50)[:, 15:35])
    assert size.tolist() == [30, 50, 0, 15, 30, 20]
    assert (
        transforms.crop(ramp(30, 50), (30, 20), np.random.default_rng(0), random=False)[1].tolist()
        == size.tolist()
    )


def test_a_small_image_is_enlarged():
    window, size = transforms.crop(ramp(5, 8), (16, 16))
    assert window.shape == (16, 16, 3)
    assert size.tolist() == [5, 8, 0, 5, 16, 16]  # scaled to 16 x 26


def test_all_suffixes_are_lower_case_and_known_to_pillow():
    Image.init()
    known = set(Image.registered_extensions())
    assert set(transforms.SUFFIXES) <= known | {'.jxl'}
    assert all(pathlib.Path('x' + suffix).suffix == suffix for suffix in transforms.SUFFIXES)


@pytest.mark.skipif(not features.check('avif'), reason='this Pillow reads no AVIF')
def test_a_damaged_avif_is_corrupt():
    data = encoded(Image.fromarray(PIXELS), 'AVIF')
    assert transforms.dimensions(data, 'x') == (20, 30)
    refused = 0
    for part in range(1, 10):
        for bad in (data[: len(data) * part // 10], data[: len(data) * part // 10] + bytes(9) + data[9:]):
            with contextlib.suppress(Corrupt):
                transforms.decode(bad, 'x.avif')
                continue
            refused += 1
    assert refused > 9


@pytest.mark.parametrize(
    'error', [RuntimeError('Failed to decode frame 0'), ZeroDivisionError(), AssertionError('x')]
)
def test_whatever_pillow_raises_is_corrupt(monkeypatch, error):
    def load(self):
        raise error

    data = encoded(Image.fromarray(PIXELS))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, 'load', load)
    with pytest.raises(Corrupt, match=f'x.png: {str(error) or type(error).__name__}'):
        transforms.decode(data, 'x.png')
