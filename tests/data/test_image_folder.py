"""Images with captions from a folder or a zip file."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from ldm_jax.data.image_folder import Source

ROWS = [
    {'file_name': 'a.png', 'caption': 'red', 'style': 'flat', 'split': 'train'},
    {'file_name': 'deep/b.webp', 'caption': 'clear', 'style': 'flat', 'split': 'test'},
    {'file_name': 'c.png', 'caption': 'blue', 'style': '3d', 'split': 'train'},
]
COLOURS = {'a.png': (255, 0, 0, 255), 'deep/b.webp': (0, 0, 0, 0), 'c.png': (0, 0, 255, 128)}


@pytest.fixture(params=['folder', 'zip'])
def path(request, tmp_path):
    folder = tmp_path / 'images'
    (folder / 'deep').mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new('RGBA', (12, 12), colour).save(folder / name, lossless=True)
    (folder / 'metadata.jsonl').write_text('\n'.join(map(json.dumps, ROWS)) + '\n')
    if request.param == 'folder':
        return str(folder)
    with zipfile.ZipFile(tmp_path / 'images.zip', 'w') as archive:
        for file in folder.rglob('*'):
            archive.write(file, file.relative_to(folder))
    return str(tmp_path / 'images.zip')


def test_rows_become_images_on_white_with_captions(path):
    source = Source(path, image_size=8, text='{caption}, {style} style')
    assert len(source) == 3
    assert [source[i]['text'] for i in range(3)] == ['red, flat style', 'clear, flat style', 'blue, 3d style']
    assert source.caption(2) == 'blue, 3d style'
    images = np.stack([source[i]['image'] for i in range(3)])
    assert images.shape == (3, 8, 8, 3)
    assert images.dtype == np.uint8
    assert (images[0] == (255, 0, 0)).all()
    assert (images[1] == 255).all()
    np.testing.assert_allclose(images[2, 0, 0], (127, 127, 255), atol=1)


def test_several_texts_show_each_image_with_each(path):
    source = Source(path, image_size=8, text=('{caption}', 'a {caption}'))
    assert [source[i]['text'] for i in range(len(source))] == [
        'red',
        'a red',
        'clear',
        'a clear',
        'blue',
        'a blue',
    ]
    np.testing.assert_array_equal(source[4]['image'], source[5]['image'])


def test_select_keeps_the_rows_that_match_every_field(path):
    source = Source(path, image_size=8, select=dict(split=('train',), style=('flat', 'round')))
    assert [row['file_name'] for row in source.rows] == ['a.png']


def test_mistakes_are_named_before_any_image_is_read(path):
    with pytest.raises(ValueError, match=r"no field 'title'.*'caption'"):
        Source(path, image_size=8, text='{title}')
    with pytest.raises(ValueError, match=r"none of 3 rows.*'valid'"):
        Source(path, image_size=8, select=dict(split=('valid',)))
    with pytest.raises(FileNotFoundError, match='nowhere'):
        Source('nowhere', image_size=8)


def test_a_folder_without_metadata_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match='metadata.jsonl'):
        Source(str(tmp_path), image_size=8)
