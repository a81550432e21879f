"""Fields that are images take a path, the bytes of a file or an array, all the same."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from ldm_jax.images import save_png, to_float, to_uint8
from ldm_jax.requests import files, infotext

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 4, 3), np.uint8)
GREY = RNG.integers(0, 256, (6, 4), np.uint8)
DEEP = RNG.integers(0, 2**16, (6, 4), np.uint16)


def data(image, form='PNG', **options):
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    return file.getvalue()


def palette(indices):
    image = Image.fromarray(indices)
    image.putpalette(RNG.integers(0, 256, 768).tolist())
    return image


@pytest.fixture(params=['path', 'text', 'bytes'])
def given(request, tmp_path):
    """A file in the form of the parameter: its content -> a pathlib.Path, a str or the bytes."""

    def give(content):
        if request.param == 'bytes':
            return content
        (tmp_path / 'file').write_bytes(content)
        return tmp_path / 'file' if request.param == 'path' else str(tmp_path / 'file')

    return give


class TestImages:
    def test_files_and_arrays_are_one_image(self, given):
        expected = to_float(RGB)
        for source in (given(data(RGB)), RGB, expected, expected.astype(np.float64)):
            found = files.load_image(source)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(files.load_image(GREY), files.load_image(data(GREY)))
        np.testing.assert_array_equal(files.load_image(GREY[..., None]), files.load_image(GREY))
        rgba = np.concatenate([RGB, GREY[..., None]], -1)
        np.testing.assert_array_equal(files.load_image(rgba), files.load_image(data(rgba)))
        assert files.load_image(RGB, (8, 8)).shape == (8, 8, 3)

    @pytest.mark.parametrize(
        ('array', 'message'),
        [
            (RGB.astype(np.int64), r'\[H, W, 3\] or \[H, W, 4\].*got int64 \[6, 4, 3\]'),
            (RGB[None], r'got uint8 \[1, 6, 4, 3\]'),
            (RGB[..., :2], r'got uint8 \[6, 4, 2\]'),
            (RGB.astype(np.float32), r'of floats is in \[-1, 1\]; got values from .* to 2'),
            (np.full((6, 4, 3), np.nan), r'of floats is in \[-1, 1\]'),
            (np.zeros((6, 4)), r'of floats is \[H, W, 3\] in \[-1, 1\]; got \[6, 4\]'),
            (np.zeros((0, 4, 3), np.uint8), 'empty'),
            (7, 'An image is a path, the bytes of a file or an array; got 7'),
            ([1, 2], r'An image is a path, the bytes of a file or an array; got \[1, 2\]'),
        ],
    )
    def test_arrays_that_are_no_image(self, array, message):
        with pytest.raises(ValueError, match=message):
            files.load_image(array)

    def test_bytes_that_are_no_image(self):
        with pytest.raises(ValueError, match='image of 5 bytes is not an image'):
            files.load_image(b'hello')


class TestOurOwnFiles:
    """Images of ours are read at the size that their text says, whatever their pixels were enlarged to."""

    TEXT = 'a\nSteps: 2, Sampler: ddim, Seed: 1, Size: 4x6, Version: {}'

    def saved(self, tmp_path, scale, text=None, image=RGB):
        save_png(tmp_path / 'a.png', image, {'parameters': text or self.TEXT.format('ldm_jax 0.1')}, scale)
        return tmp_path / 'a.png'

    @pytest.mark.parametrize('scale', [1, 2, 3, 8])
    def test_the_pixels_are_those_before_they_were_enlarged(self, tmp_path, scale):
        path = self.saved(tmp_path, scale)
        np.testing.assert_array_equal(to_uint8(files.load_image(path)), RGB)
        np.testing.assert_array_equal(to_uint8(files.load_image(path.read_bytes())), RGB)

    def test_every_pixel_value_survives(self, tmp_path):
        image = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, -1)
        path = self.saved(tmp_path, 8, self.TEXT.format('ldm_jax 1').replace('4x6', '16x16'), image)
        np.testing.assert_array_equal(to_uint8(files.load_image(path)), image)

    @pytest.mark.parametrize(
        'text',
        [
            TEXT.format('v1.10.1'),  # the web UI's
            TEXT.format('ldm_jax 1').replace('4x6', '5x6'),  # cut afterwards
            TEXT.format('ldm_jax 1').replace('4x6', '0x0'),
            TEXT.format('ldm_jax 1').replace('4x6', 'large'),
            TEXT.format('ldm_jax 1').replace('Size: 4x6, ', ''),
            'a prompt alone',
        ],
    )
    def test_other_files_keep_their_size(self, tmp_path, text):
        assert files.load_image(self.saved(tmp_path, 2, text)).shape == (12, 8, 3)

    def test_a_sheet_is_no_image_to_begin_with(self, tmp_path):
        text = self.TEXT.format('ldm_jax 1') + f', {infotext.SHEET}: 1x2'
        with pytest.raises(ValueError, match='a.png is a sheet of several images: give one of them'):
            files.load_image(self.saved(tmp_path, 2, text))

    def test_a_mask_that_was_painted_over_the_enlarged_file(self, tmp_path):
        mask = np.where(RNG.random((6, 4)) < 0.5, 0, 255).astype(np.uint8)
        image = files.load_image(self.saved(tmp_path, 8))
        large = mask.repeat(8, 0).repeat(8, 1)
        for source in (mask, data(mask), large, data(large)):
            np.testing.assert_array_equal(files.load_mask(source, image.shape[:2])[..., 0], mask / 255)
        with pytest.raises(ValueError, match='is 12 x 4 and the image 6 x 4'):
            files.load_mask(data(mask.repeat(2, 0)), image.shape[:2])


class TestMasks:
    def test_files_and_arrays_are_one_mask(self, given):
        expected = (GREY / np.float32(255))[..., None]
        for source in (given(data(GREY)), GREY, GREY[..., None], expected, expected[..., 0]):
            np.testing.assert_array_equal(files.load_mask(source, (6, 4)), expected)
        np.testing.assert_array_equal(files.load_mask(GREY > 9, (6, 4))[..., 0], GREY > 9)

    @pytest.mark.parametrize(
        ('mask', 'message'),
        [
            (np.full((6, 4), 1.5), r'values from 1.5 to 1.5; they must be in \[0, 1\]'),
            (np.full((6, 4), np.nan), r'must be in \[0, 1\]'),
            (np.zeros((6, 4, 3)), r'A mask is an array \[H, W\] or \[H, W, 1\]; got float64 \[6, 4, 3\]'),
            (np.zeros((4, 6)), r'is 4 x 6 and the image 6 x 4'),
        ],
    )
    def test_errors(self, mask, message):
        with pytest.raises(ValueError, match=message):
            files.load_mask(mask, (6, 4))


class TestDepthMaps:
    FLOATS = RNG.random((6, 4), np.float32) * 50

    @pytest.mark.parametrize(
        ('image', 'form', 'expected'),
        [
            (GREY, 'PNG', GREY),
            (DEEP, 'PNG', DEEP),
            (DEEP.astype(np.int32) * 3, 'TIFF', DEEP * 3.0),
            (FLOATS, 'TIFF', FLOATS),
            (GREY[..., None].repeat(3, -1), 'PNG', GREY),
            (np.dstack([GREY] * 3 + [np.full_like(GREY, 255)]), 'PNG', GREY),
            (GREY > 100, 'PNG', (GREY > 100) * 255),
        ],
    )
    def test_grey_values_of_any_depth_are_kept_as_they_are(self, given, image, form, expected):
        found = files.load_depth(given(data(image, form)))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.float32(expected)[..., None])

    def test_arrays(self):
        for array in (GREY, DEEP, self.FLOATS, self.FLOATS[..., None]):
            np.testing.assert_array_equal(files.load_depth(array), np.float32(array).reshape(6, 4, 1))

    @pytest.mark.parametrize(
        ('source', 'message'),
        [
            (data(RGB), 'The depth map .* holds colours. Save it as grey values'),
            (data(np.full((6, 4), np.inf, np.float32), 'TIFF'), 'has values that are not finite'),
            (np.full((6, 4), np.nan), 'has values that are not finite'),
            (data(0 * GREY), 'is 0 everywhere: it has no depth to keep'),
            (RGB, r'A depth map is an array \[H, W\] or \[H, W, 1\]; got uint8 \[6, 4, 3\]'),
            (np.array([['a']]), r'A depth map is an array'),
            (b'hello', 'is not an image'),
        ],
    )
    def test_errors(self, source, message):
        with pytest.raises(ValueError, match=message):
            files.load_depth(source)


class TestLabelMaps:
    @pytest.mark.parametrize(
        ('image', 'form', 'expected'),
        [
            (GREY, 'PNG', GREY),
            (DEEP, 'PNG', DEEP),
            (DEEP.astype(np.int32) * 3, 'TIFF', DEEP.astype(np.int32) * 3),
            (palette(GREY), 'PNG', GREY),  # the index, whatever its colour
            (palette(GREY % 5), 'BMP', GREY % 5),
            (GREY > 100, 'PNG', GREY > 100),
            (GREY[..., None].repeat(3, -1), 'PNG', GREY),
        ],
    )
    def test_values_and_palette_indices_are_classes(self, given, image, form, expected):
        found = files.load_labels(given(data(image, form)))
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, expected)

    def test_arrays(self):
        for array in (GREY, DEEP, GREY.astype(np.int64)[..., None]):
            np.testing.assert_array_equal(files.load_labels(array), array.reshape(6, 4))

    @pytest.mark.parametrize(
        ('source', 'message'),
        [
            (data(RGB), 'The label map .* holds colours.*or with a palette'),
            (data(GREY, 'JPEG'), 'is a JPEG, which changes values. Save it as PNG'),
            (data(np.zeros((6, 4), np.float32), 'TIFF'), 'holds floats; classes are integers'),
            (data(np.int32([[1, -3]]), 'TIFF'), 'holds -3 to 1; classes are numbered from 0 on'),
            (np.zeros((6, 4)), r'A label map is an array \[H, W\] of integers; got float64 \[6, 4\]'),
            (RGB, r'A label map is an array \[H, W\] of integers; got uint8 \[6, 4, 3\]'),
            (b'hello', 'is not an image'),
        ],
    )
    def test_errors(self, source, message):
        with pytest.raises(ValueError, match=message):
            files.load_labels(source)


class TestLayouts:
    BOXES = [(3, 0.0, 0.0, 0.5, 1.0), (0, 0.25, 0.5, 1.0, 1.0)]  # noqa: RUF012

    def test_files_bytes_and_lists(self, given):
        assert files.load_layout(given(json.dumps(self.BOXES).encode())) == self.BOXES
        assert files.load_layout(json.dumps(self.BOXES)) == self.BOXES
        assert files.load_layout(self.BOXES) == self.BOXES
        assert files.load_layout([list(box) for box in self.BOXES]) == self.BOXES

    @pytest.mark.parametrize(
        'layout',
        [b'', b'{', b'7', b'{"a": 1}', b'[[1, 0, 0, 1]]', b'[[1, 0, 0, "x", 1]]', b'[[1.5, 0, 0, 1, 1]]', b'[null]',
         b'[[true, 0, 0, 1, 1]]', b'[[NaN, 0, 0, 1, 1]]', b'[[1e999, 0, 0, 1, 1]]', b'\xff', b'[' * 100_000, 7, [7]],
    )  # fmt: skip
    def test_other_forms_are_one_error(self, layout):
        with pytest.raises(ValueError, match=r'is not a layout, which is JSON \[\[class, left'):
            files.load_layout(layout)

    def test_no_such_file(self):
        with pytest.raises(FileNotFoundError, match="No layout at 'nowhere.json'"):
            files.load_layout('nowhere.json')
