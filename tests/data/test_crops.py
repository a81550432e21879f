"""Windows of a source's images."""

import itertools

import numpy as np
import pytest

from ldm_jax import build
from ldm_jax.data import pipeline
from ldm_jax.data.crops import Source
from ldm_jax.data.image_folder import Source as Folder
from tests.data.images import image


@pytest.fixture
def folder(tmp_path):
    for i in range(4):
        (tmp_path / f'{i}.png').write_bytes(image(i, (40 + i, 30)))
    return str(tmp_path)


def test_by_index_the_middle_in_a_batch_anywhere_and_the_same_again(folder):
    source = build.build(
        'data',
        dict(name='crops', image_size=16, source=dict(name='image_folder', path=folder, text='{stem}')),
    )
    assert source[1]['image'].shape == (16, 16, 3)
    assert source[1]['size'].tolist() == [30, 41, 0, 3, 16, 16]  # scaled to 16 x 22
    assert source.caption(1) == source[1]['text'] == '1'
    assert source.name(1) == '1.png'

    def sizes(start):
        batches = pipeline.batches(source, batch_size=4, seed=0, start=start)
        found = [batch['size'] for batch in itertools.islice(batches, 10)]
        batches.close()
        return np.stack(found)

    first = sizes(0)
    assert first.shape == (10, 4, 6)
    assert len(np.unique(first[..., 3])) > 3
    np.testing.assert_array_equal(sizes(5)[:5], first[5:])


def test_without_random_only_mirroring_differs(folder):
    source = Source(Folder(folder, text=''), image_size=(30, 20), random=False, flip=True)
    view = source.view(0, np.random.default_rng(0))
    assert view['size'].tolist() == source[0]['size'].tolist() == [30, 40, 0, 10, 30, 20]


def test_images_that_are_cut_already_are_refused(folder):
    with pytest.raises(ValueError, match='image_size=8'):
        Source(Folder(folder, text='', image_size=8), image_size=16)
    with pytest.raises(ValueError, match='at least 1; got 0'):
        Source(Folder(folder, text=''), image_size=0)


def test_windows_show_the_share_of_the_image_that_they_may(folder):
    source = Source(Folder(folder, text=''), image_size=16, min_share=0.5)
    assert source[0]['size'].tolist() == [30, 40, 0, 2, 16, 16]  # by index all of it
    sizes = np.stack([source.view(0, np.random.default_rng(i))['size'] for i in range(200)])
    lowest = sizes[:, 2].max()  # of a shorter side that is scaled to 16 .. 32 pixels
    assert 10 < lowest <= 16
    with pytest.raises(ValueError, match='min_share must be above 0 and at most 1; got 1.5'):
        Source(Folder(folder, text=''), image_size=16, min_share=1.5)
