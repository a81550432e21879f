"""The shared images, when they are there, through the loader."""

import itertools

import numpy as np
import pytest

from ldm_jax.data import buckets, crops, image_folder, pipeline
from tests.shared_data import shared


def first(source, count, batch_size=32):
    batches = pipeline.batches(source, batch_size, seed=0)
    found = list(itertools.islice(batches, count))
    batches.close()
    assert batches.report.names == {}
    return found


@pytest.mark.parametrize(
    ('name', 'count', 'settings'),
    [
        ('grocery96.zip', 1776, dict(image_size=96, label='caption', select={'split': ('train',)})),
        (
            'emoji64.zip',
            9747,
            dict(image_size=32, text='{caption}, {style} style', select={'split': ('train',)}),
        ),
        ('crawl_tiles32.zip', 3931, dict(image_size=32, label='category')),
    ],
)
def test_packs_give_images_with_captions(name, count, settings):
    source = image_folder.Source(str(shared(name)), **settings)
    assert len(source) == count
    for batch in first(source, 4):
        assert batch['image'].shape == (32, settings['image_size'], settings['image_size'], 3)
        assert batch['image'].std() > 20
        assert all(batch['text'])
        assert ('label' in batch) == ('label' in settings)
        if name == 'grocery96.zip':
            assert (batch['text'] == np.array(source.table.classes('caption'))[batch['label']]).all()


def test_photographs_of_two_shapes_are_bucketed_and_cropped():
    source = image_folder.Source(str(shared('kodak')), text='{stem}')
    bucketed = buckets.Source(source, image_size=96, multiple=16)
    assert {bucketed.shape(i) for i in range(24)} == {(80, 112), (112, 80)}
    assert sorted(map(len, bucketed.buckets)) == [6, 18]
    for batch in first(bucketed, 3, batch_size=2):
        assert set(map(tuple, batch['size'][:, 4:])) == {batch['image'].shape[1:3]}
        assert all(max(size[:2]) == 768 for size in batch['size'])
    assert first(crops.Source(source, image_size=64), 1, batch_size=2)[0]['image'].shape == (2, 64, 64, 3)
