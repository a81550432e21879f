"""The list of emoji64's rows and splits, and the drawing of its images."""

import collections
import importlib.util
import io
import json
import os
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from ldm_jax.data.tfds import Source
from tests.data.builders import packages

pytest.importorskip('tensorflow_datasets')
from ldm_jax.data.builders import emoji64

PACK = pathlib.Path(os.environ.get('LDM_JAX_EMOJI_PACK', 'data/emoji64.zip'))
ARCHIVES = pathlib.Path(
    os.environ.get('LDM_JAX_EMOJI_PACKAGES', 'data/npm')
)  # as tools/build_emoji64.py leaves them
needs_pack = pytest.mark.skipif(not PACK.is_file(), reason=f'no emoji pack at {PACK}')
needs_resvg = pytest.mark.skipif(
    importlib.util.find_spec('resvg_py') is None, reason='resvg-py is not installed'
)
WHITE_KEYS = {('noto', '0023-fe0f-20e3'), ('noto-v1', '0023-fe0f-20e3')}  # empty keys in the pack, '#' here


def pack():
    with zipfile.ZipFile(PACK) as archive:
        rows = archive.read('metadata.jsonl').decode().splitlines()
        return {(row['style'], row['hexcode']): row for row in map(json.loads, rows)}


def on_white(pixels):
    pixels = np.asarray(pixels, np.float64)
    alpha = pixels[..., 3:] / 255
    return pixels[..., :3] * alpha + 255 * (1 - alpha)


def test_the_list_has_the_published_counts():
    rows = emoji64.rows()
    assert len(rows) == len(set(rows)) == 10_899
    assert len({row.hexcode for row in rows}) == 1_914
    assert collections.Counter(row.split for row in rows) == {
        'train': 9_747,
        'test_pair': 642,
        'test_concept': 510,
    }
    assert collections.Counter(row.style for row in rows) == {
        'noto': 1652, 'noto-v1': 1217, 'twemoji': 1914, 'fluent-emoji': 1590, 'fluent-emoji-flat': 1594,
        'emojione': 1080, 'fluent-emoji-3d': 1852,
    }  # fmt: skip


def test_a_held_out_pair_is_known_to_have_a_twin_in_training():
    splits = {(row.style, row.hexcode): row.split for row in emoji64.rows()}
    pairs = [row for row in emoji64.rows() if row.split == 'test_pair']
    for row in pairs:
        others = [style for style in emoji64.TWINS if style != row.style and row.style in emoji64.TWINS]
        assert row.twin_in_training == any(splits.get((style, row.hexcode)) == 'train' for style in others)
        # The emoji is trained on in some style, or it would be a test_concept.
        assert 'train' in {splits.get((style, row.hexcode)) for style in emoji64.PACKAGES}
    assert sum(not row.twin_in_training for row in pairs) == 320
    concepts = {row.hexcode for row in emoji64.rows() if row.split == 'test_concept'}
    assert not concepts & {row.hexcode for row in emoji64.rows() if row.split != 'test_concept'}


@needs_pack
def test_the_list_is_that_of_the_pack():
    assert {(row.style, row.hexcode): row.split for row in emoji64.rows()} == {
        key: row['split'] for key, row in pack().items()
    }


@pytest.mark.slow
@needs_pack
@needs_resvg
@pytest.mark.skipif(not ARCHIVES.is_dir(), reason=f'no npm packages at {ARCHIVES}')
def test_words_and_images_are_those_of_the_pack():
    rows, far = pack(), {}
    words = emoji64.words(emoji64.WORDS.fetch(ARCHIVES))
    archives = {style: package.fetch(ARCHIVES) for style, package in emoji64.PACKAGES.items()}
    with zipfile.ZipFile(PACK) as archive:
        for style in emoji64.PACKAGES:
            draw = emoji64.drawings(style, archives)
            for i, row in enumerate(row for row in emoji64.rows() if row.style == style):
                theirs, ours = rows[style, row.hexcode], words[row.hexcode]
                assert ours == {field: theirs[field] for field in ours}
                assert emoji64.LICENCES[style] == theirs['licence']
                if i % 10 == 0 or (style, row.hexcode) in WHITE_KEYS:
                    image = Image.open(io.BytesIO(archive.read(theirs['file_name']))).convert('RGBA')
                    difference = np.abs(on_white(draw(row.hexcode, ours['caption'])) - on_white(image)).mean()
                    if difference > 0:
                        far[style, row.hexcode] = difference
    assert far.keys() >= WHITE_KEYS
    assert all(difference < 2.2 for key, difference in far.items() if key not in WHITE_KEYS)  # of 255
    assert len(far) < 10


@pytest.fixture
def archives(tmp_path):
    """Packages of three emoji in two styles of vectors and one of pixels."""

    def icons(**found):
        body = '<rect width="32" height="32" fill="{}"/>'
        return {
            'width': 32,
            'height': 32,
            'icons': {name: {'body': body.format(c)} for name, c in found.items()},
        }

    def pixels(colour):
        file = io.BytesIO()
        Image.new('RGBA', (256, 256), colour).save(file, 'WEBP', lossless=True)
        return file.getvalue()

    made = {
        'noto': packages.write(
            tmp_path, '@i/noto', '1', {
                'icons.json': icons(apple='#ff0000', key='#0000ff') | {'aliases': {'pomme': {'parent': 'apple'}}},
                'chars.json': {'1f34e': 'pomme', '0023-20e3': 'key'},
            }
        ),
        'noto-v1': packages.write(
            tmp_path, '@i/noto-v1', '1', {'icons.json': icons(apple='#00ff00', key='#ffff00'), 'chars.json': {}}
        ),
        emoji64.PIXELS: packages.write(
            tmp_path, '@l/3d', '1', {'assets/1f34e.webp': pixels('red'), 'assets/0023-20e3.webp': pixels('white')}
        ),
    }  # fmt: skip
    words = {
        'en/messages.json': {
            'groups': [{'key': 'food', 'order': 4}],
            'subgroups': [{'key': 'fruit', 'order': 9}],
        },
        'en/data.json': [
            {
                'hexcode': '1F34E',
                'label': 'Apple',
                'emoji': 'A',
                'group': 4,
                'subgroup': 9,
                'tags': ['red', 'fruit'],
            },
            {'hexcode': '0023-FE0F-20E3', 'label': 'keycap: #', 'emoji': '#'},
        ],
    }
    return made, packages.write(tmp_path, 'words', '1', words)


@needs_resvg
def test_drawings_are_found_by_their_characters_or_by_the_names_of_other_sets(archives, tmp_path):
    made = {style: package.fetch(tmp_path) for style, package in archives[0].items()}
    expected = {
        ('noto', '1f34e'): (255, 0, 0, 255), ('noto', '0023-fe0f-20e3'): (0, 0, 255, 255),
        ('noto-v1', '1f34e'): (0, 255, 0, 255), ('noto-v1', '0023-fe0f-20e3'): (255, 255, 0, 255),
        (emoji64.PIXELS, '1f34e'): (255, 0, 0, 255), (emoji64.PIXELS, '0023-fe0f-20e3'): (255, 255, 255, 255),
    }  # fmt: skip
    for (style, hexcode), colour in expected.items():
        drawn = emoji64.drawings(style, made)(hexcode, 'Apple' if hexcode == '1f34e' else 'keycap: #')
        assert drawn.shape == (64, 64, 4)
        assert (drawn == colour).all()


@needs_resvg
def test_the_data_set_is_built_and_read(archives, tmp_path, monkeypatch):
    rows = [
        emoji64.Row('1f34e', 'noto', 'train', False),
        emoji64.Row('0023-fe0f-20e3', 'noto-v1', 'test_concept', False),
        emoji64.Row('1f34e', emoji64.PIXELS, 'test_pair', True),
    ]
    monkeypatch.setattr(emoji64, 'rows', lambda: rows)
    monkeypatch.setattr(emoji64, 'PACKAGES', archives[0])
    monkeypatch.setattr(emoji64, 'WORDS', archives[1])
    builder = emoji64.Emoji64(data_dir=tmp_path / 'built', packages=str(tmp_path), file_format='array_record')
    builder.download_and_prepare()
    text = '{caption}, {style} style, {keywords}, {group}, {licence}'
    source = Source('emoji64', image_size=64, text=text, data_dir=str(tmp_path / 'built'))
    assert source[0]['text'] == 'Apple, noto style, red, food, Apache-2.0'
    assert source.captions(0)[1] == 'Apple, noto style, fruit, food, Apache-2.0'
    assert (source[0]['image'] == (255, 0, 0)).all()
    held_out = Source(
        'emoji64', text='{emoji}{twin_in_training!r}', split='test_pair', data_dir=str(tmp_path / 'built')
    )
    assert len(held_out) == 1
