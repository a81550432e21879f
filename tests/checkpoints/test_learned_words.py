"""Learned words out of every file that holds them: the same vectors, by the names that prompts use."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldm_jax.checkpoints import learned_words
from ldm_jax.checkpoints.files.reader import BadFile
from tests.shared_data import shared

VECTORS = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
WIDE = np.random.default_rng(1).standard_normal((2, 12)).astype(np.float32)


def web_ui(folder):
    """A1111's .pt, as a ParameterDict of torch before 1.12 and as a plain dict."""
    import torch

    parameter = torch.nn.Parameter(torch.from_numpy(VECTORS))
    data = dict(
        string_to_token={'*': 265}, name='inside', step=5, sd_checkpoint=None, sd_checkpoint_name=None
    )
    torch.save(data | dict(string_to_param={'*': parameter}), folder / 'moss.pt')
    torch.save(data | dict(string_to_param=torch.nn.ParameterDict({'*': parameter})), folder / 'fern.pt')
    return ['moss.pt', 'fern.pt'], ['moss', 'fern']


def diffusers(folder):
    import torch

    torch.save({'<moss>': torch.from_numpy(VECTORS)}, folder / 'learned_embeds.bin')
    return ['learned_embeds.bin'], ['learned_embeds', '<moss>']


def safetensors(folder):
    from safetensors.numpy import save_file

    save_file({'emb_params': VECTORS}, folder / 'kohya.safetensors')
    save_file({'<a>': VECTORS, '<b>': VECTORS}, folder / 'two.safetensors')
    return ['kohya.safetensors', 'two.safetensors'], ['kohya', '<a>', '<b>']


def written(data):
    return json.dumps(data, default=lambda array: dict(TORCHTENSOR=array.tolist())).encode()


def png_text(folder):
    info = PngInfo()
    data = dict(string_to_param={'*': VECTORS}, name='painted')
    info.add_text('sd-ti-embedding', base64.b64encode(written(data)).decode())
    Image.new('RGB', (4, 4), 'red').save(folder / 'card.png', pnginfo=info)
    return ['card.png'], ['painted']


def png_pixels(folder):
    """The web UI's insert_image_data_embed: nibbles on both sides, one bit above them so that none is black."""
    packed = np.frombuffer(
        zlib.compress(written(dict(string_to_param={'*': VECTORS}, name='hidden'))), np.uint8
    )
    height = 20
    packed = np.pad(packed, (0, -len(packed) % (3 * height)))

    def mask():
        seed = 0
        while True:
            seed = (1664525 * seed + 1013904223) % 2**32
            yield seed % 255 & 0x0F

    sides = []
    for nibble in (packed & 0x0F, packed >> 4):
        numbers = mask()
        hidden = np.array([each ^ next(numbers) for each in nibble], np.uint8).reshape(height, -1, 3)
        sides.append(hidden | 0x50)
    line = np.zeros((height, 1, 3), np.uint8)
    shown = np.full((height, 30, 3), 200, np.uint8)
    Image.fromarray(np.concatenate([sides[0], line, shown, line, sides[1]], 1)).save(folder / 'old.png')
    return ['old.png'], ['hidden']


@pytest.mark.parametrize('kind', [web_ui, diffusers, safetensors, png_text, png_pixels])
def test_every_kind_of_file(kind, tmp_path):
    files, names = kind(tmp_path)
    found = learned_words.load([tmp_path], dict(text_encoder=8))
    assert sorted(found) == sorted(names)
    for word in found.values():
        np.testing.assert_array_equal(word.vectors['text_encoder'], VECTORS)
        assert len(word.hash) == 64
    assert (
        learned_words.load([tmp_path / file for file in files], dict(text_encoder=8)).keys() == found.keys()
    )
    with pytest.warns(UserWarning, match='for other models are left out'):
        assert not learned_words.load([tmp_path], dict(text_encoder=8, text_encoder_2=12))
    with pytest.raises(ValueError, match=r'has vectors \[8\] wide.*for another model'):
        learned_words.load([tmp_path / files[0]], dict(text_encoder=9))


def test_words_for_both_encoders_of_sdxl(tmp_path):
    from safetensors.numpy import save_file

    save_file({'clip_l': VECTORS, 'clip_g': WIDE}, tmp_path / 'both.safetensors')
    found = learned_words.load([tmp_path], dict(text_encoder=8, text_encoder_2=12))['both']
    np.testing.assert_array_equal(found.vectors['text_encoder'], VECTORS)
    np.testing.assert_array_equal(found.vectors['text_encoder_2'], WIDE)
    assert found.count == 2


def test_damaged_files_are_named(tmp_path):
    from safetensors.numpy import save_file

    save_file({'emb_params': np.full((1, 8), np.nan, np.float32)}, tmp_path / 'nan.safetensors')
    save_file({'clip_l': VECTORS, 'clip_g': WIDE[:1]}, tmp_path / 'uneven.safetensors')
    save_file({'x': np.zeros((2, 2, 2), np.float32)}, tmp_path / 'cube.safetensors')
    (tmp_path / 'junk.pt').write_bytes(b'junk' * 9)
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG junk')
    Image.new('RGB', (8, 8), 'black').save(tmp_path / 'black.png')
    Image.new('RGB', (8, 8), 'white').save(tmp_path / 'white.png')
    for name, text in (('[[', 'bomb'), (json.dumps([1]), 'list'), (json.dumps(dict(a=1)), 'none')):
        info = PngInfo()
        info.add_text('sd-ti-embedding', base64.b64encode(name.encode()).decode())
        Image.new('RGB', (4, 4)).save(tmp_path / f'{text}.png', pnginfo=info)
    files = [path for path in tmp_path.iterdir()]
    for file in files:
        with pytest.raises(BadFile, match=file.name):
            learned_words.read(file)
    with pytest.warns(UserWarning, match='Left out') as caught:
        assert not learned_words.load([tmp_path], dict(text_encoder=8))
    assert len(caught) == len(files)
    with pytest.raises(FileNotFoundError, match='neither a file nor a folder'):
        learned_words.load([tmp_path / 'none'], {})


def test_what_an_image_hides_has_bounds():
    bomb = zlib.compress(bytes(learned_words.LARGEST + 1))
    with pytest.raises(ValueError, match='unpacks to more than'):
        learned_words._unpacked(bomb)
    assert learned_words._unpacked(zlib.compress(b'x')) == b'x'
    assert io.BytesIO(bomb).getbuffer().nbytes < 1 << 20


def test_a_published_word():
    found = learned_words.load([shared('weights/textual_inversion_birb_style.bin')], dict(text_encoder=768))
    assert {'<birb-style>', 'textual_inversion_birb_style'} == found.keys()
    assert found['<birb-style>'].hash.startswith('f2e23a8f2d36')
