"""What lies beside images: cut as they are, and corrupt where it is not what it should be."""

import json

import numpy as np
import pytest
from PIL import Image

from ldm_jax import build
from ldm_jax.data import box_tokens, pipeline
from ldm_jax.data.corrupt import Corrupt


@pytest.fixture
def folder(tmp_path):
    """Images of 12 x 8 whose left edge is red, and files of each kind at the same paths below their own folders."""
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, :2] = (255, 0, 0)
    pixels[2:6, 4:8] = (0, 255, 0)
    for kind in ('images', 'source', 'depth', 'map', 'boxes'):
        (tmp_path / kind / 'a').mkdir(parents=True)
    for n in range(3):
        Image.fromarray(pixels).save(tmp_path / f'images/a/{n}.png')
        Image.fromarray(255 - pixels).save(tmp_path / f'source/a/{n}.png')
        Image.fromarray(pixels[..., 1].astype(np.uint16) * 257).save(tmp_path / f'depth/a/{n}.png')
        Image.fromarray(pixels[..., 1] // 255 * 7 + n).save(tmp_path / f'map/a/{n}.png')
        rows = [[3, 4 / 12, 2 / 8, 8 / 12, 6 / 8], [9, 0, 0, 1 / 12, 1], [5, 0, 0, 1, 1]]
        (tmp_path / f'boxes/a/{n}.json').write_text(json.dumps(rows))
    return tmp_path


def source(folder, kind, size=8, **fields):
    images = dict(name='image_folder', path=str(folder / 'images'), text='', image_size=size)
    spec = dict(name='beside', source=images, folder=str(folder / kind), kind=kind)
    return build.build('data', spec | fields)


def test_each_kind_is_cut_as_the_image_was(folder):
    inside = np.zeros((8, 8), bool)
    inside[2:6, 2:6] = True  # of the middle square
    examples = {
        kind: source(folder, kind, length=11, vocab_size=64)[1]
        for kind in ('source', 'depth', 'map', 'boxes')
    }
    for example in examples.values():
        np.testing.assert_array_equal(example['image'][..., 1] == 255, inside)
    np.testing.assert_array_equal(examples['source']['source'], 255 - examples['source']['image'])
    np.testing.assert_allclose(examples['depth']['depth'][..., 0], inside)
    np.testing.assert_array_equal(examples['map']['map'], 7 * inside + 1)
    # The box at the left edge is out of the square; the largest comes first.
    wanted = box_tokens.tokens([(5, 0, 0, 1, 1), (3, 0.25, 0.25, 0.75, 0.75)], 64, 11)
    assert examples['boxes']['boxes'].tolist() == wanted
    assert source(folder, 'map', 4)[0]['map'].shape == (4, 4)


def test_batches_have_it_and_broken_files_are_left_out(folder):
    (folder / 'map/a/0.png').unlink()
    Image.new('RGB', (12, 8)).save(folder / 'map/a/1.png')
    found = source(folder, 'map')
    for i, message in ((0, 'cannot be read'), (1, 'one channel; this image is RGB')):
        with pytest.raises(Corrupt, match=message):
            found[i]
    batches = pipeline.batches(found, batch_size=2, seed=0, max_corrupt=0.9)
    assert set(np.unique(next(batches)['map'])) == {2, 9}
    batches.close()
    (folder / 'boxes/a/0.json').write_text('[[1, 2]]')
    with pytest.raises(Corrupt, match=r'rows \[class, left'):
        source(folder, 'boxes')[0]


def test_bad_settings_are_one_line(folder):
    with pytest.raises(ValueError, match="No kind of files beside images 'maps'.*Did you mean 'map'"):
        build.build('data', dict(name='beside', source=pipeline.InMemory({}), folder='.', kind='maps'))
    with pytest.raises(ValueError, match='needs an image_size'):
        source(folder, 'map', None)
    with pytest.raises(FileNotFoundError, match='No folder .*/none'):
        build.build(
            'data',
            dict(
                name='beside',
                source=dict(name='image_folder', path=str(folder / 'images'), text='', image_size=8),
                folder=str(folder / 'none'),
                kind='map',
            ),
        )
