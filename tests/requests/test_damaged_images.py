"""A damaged image file is an image, or one error that names it, whatever its decoder raises."""

import io
import random
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from ldm_jax.requests import files, image_files

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
FORMATS = {
    'PNG': {}, 'JPEG': {}, 'GIF': {}, 'BMP': {}, 'TIFF': {'compression': 'tiff_lzw'}, 'WEBP': {}, 'AVIF': {},
    'JPEG2000': {}, 'TGA': {'compression': 'tga_rle'}, 'PPM': {}, 'ICO': {}, 'PCX': {}, 'SGI': {},
    'DDS': {}, 'QOI': {},
}  # fmt: skip
READERS = {
    'image': files.load_image,
    'mask': lambda source: files.load_mask(source, (48, 40)),
    'depth': files.load_depth,
    'labels': files.load_labels,
    'texts': image_files.texts,
}


def encoded(form):
    if form == 'AVIF' and not features.check('avif'):
        pytest.skip('this Pillow has no AVIF')
    file = io.BytesIO()
    image = Image.fromarray(PIXELS)
    if form == 'ICO':
        image = image.resize((32, 32))
    image.save(file, form, **FORMATS[form])
    return file.getvalue()


def damaged(data, count=40):
    """Copies of a file that are cut, or have bytes changed, dropped or repeated."""
    draw = random.Random(0)
    for i in range(count):
        at = draw.randrange(len(data))
        if i % 4 == 0:
            yield data[:at]
        elif i % 4 == 1:
            yield data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        elif i % 4 == 2:
            yield data[:at] + draw.randbytes(4) + data[at + 4 :]
        else:
            yield data[:at] + data[at + draw.randrange(9) :]


@pytest.mark.parametrize('form', FORMATS)
def test_damage_is_read_or_named(form, tmp_path):
    path = tmp_path / 'a.img'
    messages = []
    for data in damaged(encoded(form)):
        path.write_bytes(data)
        for read in READERS.values():
            try:
                read(path)
            except ValueError as error:
                messages.append(str(error))
    assert messages
    assert all('a.img' in message and '\n' not in message for message in messages)


@pytest.mark.parametrize('reader', READERS)
def test_an_avif_that_is_cut_in_the_middle(reader, tmp_path):
    """Pillow's decoder raises RuntimeError for it."""
    data = encoded('AVIF')
    (tmp_path / 'a.avif').write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r'a\.avif (cannot be read|is not an image)'):
        READERS[reader](tmp_path / 'a.avif')


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize(
    'error',
    [
        RuntimeError('decoder'), OSError('truncated'), SyntaxError('broken'), EOFError(), KeyError('tag'),
        IndexError(), TypeError('x'), AttributeError('x'), AssertionError(), OverflowError(), MemoryError(),
        RecursionError('deep'), NotImplementedError(), struct.error('unpack'), zlib.error('Error -3'),
        UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'x'), ZeroDivisionError(), Exception('any'),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_any_exception_of_a_decoder_is_one_named_error(reader, error, tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')

    def load(self):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, 'load', load)
    with pytest.raises(
        ValueError, match=rf'a\.png cannot be read: .*{type(error).__name__ if not str(error) else ""}'
    ):
        READERS[reader](tmp_path / 'a.png')


@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit])
def test_a_user_who_stops_it_is_no_damage(error, tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')

    def load(self):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, 'load', load)
    with pytest.raises(error):
        files.load_image(tmp_path / 'a.png')


class TestPixels:
    """Files with more pixels than are wanted are refused by their headers."""

    def bomb(self, path, width, height):
        """A PNG that claims a size; its pixels are not there."""

        def chunk(name, data):
            return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))

        header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
        path.write_bytes(
            b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b'') + chunk(b'IEND', b'')
        )

    @pytest.mark.parametrize('reader', READERS)
    @pytest.mark.parametrize('size', [(9434, 9434), (8193, 4096), (20_000, 20_000), (2**31 - 1, 1)])
    def test_refused_before_pixels_are_decoded(self, reader, size, tmp_path, monkeypatch):
        self.bomb(tmp_path / 'a.png', *size)
        monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda self: pytest.fail('decoded'))
        with pytest.raises(ValueError, match=r'a\.png has more than 33554432 pixels.* or raise max_pixels'):
            READERS[reader](tmp_path / 'a.png')

    @pytest.mark.parametrize(
        'limit', [1919, 959, 10]
    )  # Pillow warns above its limit and refuses above twice that
    def test_the_cap_is_exact_and_can_be_set(self, limit, tmp_path):
        Image.fromarray(PIXELS).save(tmp_path / 'a.png')
        assert files.load_image(tmp_path / 'a.png', max_pixels=48 * 40).shape == (48, 40, 3)
        for load in (files.load_image, files.load_depth, files.load_labels):
            with pytest.raises(ValueError, match=f'a.png has more than {limit} pixels'):
                load(tmp_path / 'a.png', max_pixels=limit)
        with pytest.raises(ValueError, match=f'a.png has more than {limit} pixels'):
            files.load_mask(tmp_path / 'a.png', (48, 40), max_pixels=limit)

    def test_it_can_be_raised_above_pillows_own(self, tmp_path, monkeypatch, recwarn):
        Image.fromarray(PIXELS).save(tmp_path / 'a.png')
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
        assert files.load_image(tmp_path / 'a.png').shape == (48, 40, 3)
        assert Image.MAX_IMAGE_PIXELS == 100
        assert not recwarn


def test_missing_files_are_named():
    for read in READERS.values():
        with pytest.raises(FileNotFoundError, match=re.escape("No image at 'nowhere.png'")):
            read('nowhere.png')
