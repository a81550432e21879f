import re
import struct
import zlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from ldm_jax.images import RESIZES, fit, to_uint8
from ldm_jax.inference.sizes import check_size
from ldm_jax.requests import files

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)


def saved(tmp_path, image, name='a.png', **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(tmp_path / name, **options)
    return tmp_path / name


def loaded(path):
    pixels = files.load_image(path)
    assert pixels.dtype == np.float32
    return to_uint8(pixels)


class TestModes:
    def test_rgb_in_minus_one_to_one(self, tmp_path):
        path = saved(tmp_path, RGB)
        np.testing.assert_array_equal(loaded(path), RGB)
        np.testing.assert_allclose(files.load_image(path), RGB / 127.5 - 1, rtol=0, atol=1e-6)

    def test_grey(self, tmp_path):
        np.testing.assert_array_equal(loaded(saved(tmp_path, GREY)), GREY[..., None].repeat(3, -1))

    def test_black_and_white(self, tmp_path):
        path = saved(tmp_path, Image.fromarray(GREY > 128))
        np.testing.assert_array_equal(loaded(path), np.where(GREY > 128, 255, 0)[..., None].repeat(3, -1))

    def test_palette_with_and_without_a_transparent_colour(self, tmp_path):
        image = Image.fromarray(GREY % 2)
        image.putpalette([10, 20, 30, 200, 100, 0])
        colours = np.array([[10, 20, 30], [200, 100, 0]])[GREY % 2]
        np.testing.assert_array_equal(loaded(saved(tmp_path, image)), colours)
        path = saved(tmp_path, image, transparency=1)
        np.testing.assert_array_equal(loaded(path), np.where((GREY % 2)[..., None], 255, colours))

    @pytest.mark.parametrize('mode', ['RGBA', 'LA'])
    def test_transparency_lies_on_white(self, tmp_path, mode):
        alpha = RNG.integers(0, 256, (5, 7), np.uint8)
        alpha[0, :2] = 0, 255
        colours = RGB if mode == 'RGBA' else GREY[..., None].repeat(3, -1)
        base = Image.fromarray(RGB if mode == 'RGBA' else GREY)
        base.putalpha(Image.fromarray(alpha))
        assert base.mode == mode
        opacity = alpha[..., None] / 255
        found = loaded(saved(tmp_path, base))
        assert abs(found - (opacity * colours + (1 - opacity) * 255)).max() <= 1
        np.testing.assert_array_equal(found[0, :2], [[255] * 3, colours[0, 1]])

    def test_sixteen_bit_grey(self, tmp_path):
        path = saved(tmp_path, GREY.astype(np.uint16) * 257)
        with Image.open(path) as image:
            assert image.mode == 'I;16'
        np.testing.assert_array_equal(loaded(path), GREY[..., None].repeat(3, -1))

    def test_sixteen_bit_colour(self, tmp_path):
        def chunk(name, data):
            return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

        rows = b''.join(b'\0' + row.tobytes() for row in (RGB.astype('>u2') * 257).astype('>u2'))
        header = struct.pack('>IIBBBBB', 7, 5, 16, 2, 0, 0, 0)
        chunks = chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
        (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + chunks)
        np.testing.assert_array_equal(loaded(tmp_path / 'a.png'), RGB)

    def test_integers_of_a_pgm(self, tmp_path):
        (tmp_path / 'a.pgm').write_bytes(
            b'P5 7 5 65535\n' + (GREY.astype('>u2') * 257).astype('>u2').tobytes()
        )
        np.testing.assert_array_equal(loaded(tmp_path / 'a.pgm'), GREY[..., None].repeat(3, -1))

    def test_cmyk(self, tmp_path):
        image = Image.new('CMYK', (4, 4), (0, 255, 255, 0))
        # JPEG and ink.
        assert abs(loaded(saved(tmp_path, image, 'a.jpg')).astype(int) - [255, 0, 0]).max() < 12

    def test_the_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue')]
        path = saved(tmp_path, frames[0], 'a.gif', save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(loaded(path), np.full((4, 4, 3), [255, 0, 0]))


@pytest.mark.parametrize(
    ('orientation', 'stored'),
    [
        (1, RGB),
        (2, RGB[:, ::-1]),
        (3, RGB[::-1, ::-1]),
        (4, RGB[::-1]),
        (5, RGB.swapaxes(0, 1)),
        (6, np.rot90(RGB)),  # the camera's top is the right side: turned clockwise for display
        (7, RGB[::-1, ::-1].swapaxes(0, 1)),
        (8, np.rot90(RGB, -1)),
    ],
)
def test_images_and_masks_are_upright(tmp_path, orientation, stored):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(loaded(path), RGB)
    assert files.load_mask(path, (5, 7)).shape == (5, 7, 1)


class TestFileErrors:
    @pytest.fixture(params=['image', 'mask'])
    def load(self, request):
        return files.load_image if request.param == 'image' else lambda path: files.load_mask(path, (5, 7))

    def test_no_such_file(self, tmp_path, load):
        for path in (tmp_path / 'none.png', tmp_path):
            with pytest.raises(FileNotFoundError, match=re.escape(f'No image at {str(path)!r}')):
                load(path)

    def test_not_an_image(self, tmp_path, load):
        (tmp_path / 'a.png').write_text('a red apple')
        with pytest.raises(ValueError, match=r'a.png is not an image'):
            load(tmp_path / 'a.png')

    @pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.bmp'])
    def test_cut_off(self, tmp_path, load, name):
        path = saved(tmp_path, RNG.integers(0, 256, (64, 64, 3), np.uint8), name)
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(ValueError, match=f'{name} cannot be read: .*truncated'):
            load(path)

    def test_numbers_without_a_scale(self, tmp_path, load):
        with pytest.raises(ValueError, match=r'a.tiff holds floats without a known scale'):
            load(saved(tmp_path, np.zeros((5, 7), np.float32), 'a.tiff'))
        with pytest.raises(ValueError, match=r'b.tiff holds integers from 0 to 70000'):
            load(saved(tmp_path, np.array([[0, 70000]], np.int32), 'b.tiff'))


class TestMasks:
    def test_white_is_one(self, tmp_path):
        mask = files.load_mask(saved(tmp_path, GREY), (5, 7))
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(mask[..., 0], GREY.astype(np.float32) / 255)

    def test_a_transparent_file_is_a_mask_by_its_opacity(self, tmp_path):
        image = Image.new('RGBA', (7, 5), (0, 0, 0, 255))
        # Opaque: by its grey.
        np.testing.assert_array_equal(files.load_mask(saved(tmp_path, image), (5, 7)), 0)
        image.putalpha(Image.fromarray(GREY))
        mask = files.load_mask(saved(tmp_path, image), (5, 7))
        np.testing.assert_array_equal(mask[..., 0], GREY.astype(np.float32) / 255)

    def test_another_size_than_the_image(self, tmp_path):
        with pytest.raises(ValueError, match=r'a.png is 5 x 7 and the image 7 x 5 \(height x width\)'):
            files.load_mask(saved(tmp_path, GREY), (7, 5))


class TestFit:
    ramp = np.linspace(-0.5, 0.5, 20, dtype=np.float32)[None, :, None].repeat(8, 0).repeat(3, -1)

    def test_crop_keeps_the_middle(self):
        np.testing.assert_array_equal(fit(self.ramp, (8, 8), 'crop'), self.ramp[:, 6:14])
        turned = self.ramp.swapaxes(0, 1)
        np.testing.assert_array_equal(fit(turned, (8, 8), 'crop'), turned[6:14])

    def test_fill_repeats_the_edges(self):
        found = fit(self.ramp, (12, 20), 'fill')
        np.testing.assert_array_equal(found, self.ramp[:1].repeat(12, 0))
        found = fit(self.ramp, (8, 25), 'fill')  # 2 columns to the left, 3 to the right
        expected = [self.ramp[:, :1].repeat(2, 1), self.ramp, self.ramp[:, -1:].repeat(3, 1)]
        np.testing.assert_array_equal(found, np.concatenate(expected, 1))

    def test_just_stretches(self):
        found = fit(self.ramp, (16, 10), 'just')
        pairs = self.ramp.reshape(8, 10, 2, 3).mean(2)
        # Away from the edges a straight line keeps its values under any symmetric filter.
        np.testing.assert_allclose(found[:, 3:-3], pairs[:1, 3:-3].repeat(16, 0), atol=1e-5)

    @pytest.mark.parametrize('resize', RESIZES)
    def test_range_and_size(self, resize):
        noise = RNG.choice(np.float32([0.25, 0.75]), (9, 13, 1))
        found = fit(noise, (40, 31), resize)
        assert found.shape == (40, 31, 1)
        assert found.dtype == np.float32
        assert found.min() >= 0.25
        assert found.max() <= 0.75

    @settings(deadline=None, max_examples=100)
    @given(*[st.integers(1, 40)] * 4, st.sampled_from(RESIZES))
    def test_every_size(self, h, w, height, width, resize):
        assert fit(np.full((h, w, 3), 0.5, np.float32), (height, width), resize).shape == (
            height,
            width,
            3,
        )

    def test_a_file_is_fitted_as_its_pixels_are(self, tmp_path):
        path = saved(tmp_path, RGB)
        expected = fit(files.load_image(path), (8, 8), 'fill')
        np.testing.assert_array_equal(files.load_image(path, (8, 8), 'fill'), expected)

    def test_errors(self):
        with pytest.raises(ValueError, match=r"No resize 'stretch'; have \['crop', 'just', 'fill'\]"):
            fit(self.ramp, (8, 8), 'stretch')
        with pytest.raises(ValueError, match='Size 0 x 8'):
            fit(self.ramp, (0, 8))


def test_sizes_are_checked_with_the_nearest_that_works():
    check_size((512, 768))
    check_size((36, 4), multiple=4)
    with pytest.raises(
        ValueError, match=r'Size 513 x 767 .* multiples of 8. The nearest that is: 512 x 768.'
    ):
        check_size((513, 767))
    with pytest.raises(ValueError, match='The nearest that is: 8 x 16'):
        check_size((-3, 16))
