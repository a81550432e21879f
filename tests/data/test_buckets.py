"""Aspect-ratio buckets."""

import itertools
import json
import math
import pickle

import numpy as np
import pytest

from ldm_jax.data import buckets, pipeline
from ldm_jax.data.image_folder import Source as Folder
from tests.data.images import BROKEN, image

# Podell et al. 2023, arXiv:2307.01952, appendix I, the half whose height is at most its width.
SDXL = """512 2048 512 1984 512 1920 512 1856 576 1792 576 1728 576 1664 640 1600 640 1536 704 1472 704 1408 704 1344
768 1344 768 1280 832 1216 832 1152 896 1152 896 1088 960 1088 960 1024 1024 1024"""


@pytest.mark.parametrize(
    ('side', 'multiple', 'low', 'high'),
    [(1024, 64, 512, 2048), (512, 64, 256, 1024), (512, 8, 256, 768), (32, 8, 16, 64), (100, 16, 48, 200)],
)
def test_shapes_fit_the_area_tightly_and_hold_the_square(side, multiple, low, high):
    found = buckets.shapes(side**2, multiple, low, high)
    square = side // multiple * multiple
    assert (square, square) in found
    assert len(set(found)) == len(found)
    assert {(w, h) for h, w in found} == set(found)
    for h, w in found:
        assert h % multiple == w % multiple == 0
        assert low <= min(h, w)
        assert max(h, w) <= high
        assert h * w <= side**2
        # Neither side could be longer, but for the square and the limit.
        assert (
            (h, w) == (square, square)
            or max(h, w) + multiple > high
            or (min(h, w) + multiple) * max(h, w) > side**2
        )
    ratios = [h / w for h, w in found]
    assert ratios == sorted(ratios)


def test_the_shapes_at_1024_are_among_those_of_sdxl():
    numbers = list(map(int, SDXL.split()))
    published = {
        shape for pair in zip(numbers[::2], numbers[1::2], strict=True) for shape in (pair, pair[::-1])
    }
    found = set(buckets.shapes(1024**2, 64, 512, 2048))
    assert len(published) == 41
    assert found <= published
    assert len(found) >= 29


def test_an_image_goes_to_the_nearest_ratio_and_lonely_ones_to_the_next():
    shapes = [(8, 32), (16, 16), (24, 8), (32, 8), (8, 8)]
    sizes = np.array([[100, 100], [10, 41], [500, 120], [30, 11], [7, 7], [20, 23]])
    assert [shapes[i] for i in buckets.assign(sizes, shapes)] == [
        (16, 16),
        (8, 32),
        (32, 8),
        (24, 8),
        (16, 16),
        (16, 16),
    ]
    merged = buckets.assign(sizes, shapes, min_count=2)
    assert [shapes[i] for i in merged][2] == [shapes[i] for i in merged][3]
    assert min(np.unique(merged, return_counts=True)[1]) >= 2
    with pytest.raises(ValueError, match='min_count is 7.*6 images'):
        buckets.assign(sizes, shapes, min_count=7)


def test_high_and_wide_images_fare_alike():
    rng = np.random.default_rng(0)
    sizes = rng.integers(10, 500, (400, 2))
    shapes = buckets.shapes(64**2, 8, 32, 128)
    ours, mirrored = buckets.assign(sizes, shapes), buckets.assign(sizes[:, ::-1], shapes)
    for a, b, (h, w) in zip(ours, mirrored, sizes, strict=True):
        distances = sorted(abs(math.log(h / w) - math.log(y / x)) for y, x in shapes)
        if distances[1] - distances[0] > 1e-9:  # no tie
            assert shapes[a] == shapes[b][::-1]


@pytest.fixture
def folder(tmp_path):
    sizes = [(40, 40)] * 9 + [(60, 20)] * 5 + [(20, 50)] * 7 + [(41, 40)]
    for i, size in enumerate(sizes):
        (tmp_path / f'{i:02}.png').write_bytes(image(i, size))
    (tmp_path / '22.png').write_bytes(BROKEN[:10])
    (tmp_path / 'metadata.jsonl').write_text(
        '\n'.join(json.dumps({'file_name': f'{i:02}.png', 'caption': f'{i}'}) for i in range(23))
    )
    return str(tmp_path)


def source(folder, **settings):
    return buckets.Source(Folder(folder), image_size=32, multiple=8, **settings)


def test_batches_have_one_shape_and_every_image_comes_once_an_epoch(folder):
    ours = source(folder)
    assert sorted(map(len, ours.buckets)) == [5, 7, 10]
    seen = []
    batches = pipeline.batches(ours, batch_size=2, seed=0, max_corrupt=1)
    for batch in itertools.islice(batches, 110):  # ten epochs of 22
        assert batch['image'].shape[0] == 2
        assert set(map(tuple, batch['size'][:, 4:])) == {batch['image'].shape[1:3]}
        seen += batch['text'].tolist()
    batches.close()
    counts = np.bincount(np.array(seen, int), minlength=23)
    assert counts[22] == 0
    assert set(counts[:22]) <= {9, 10, 11}
    assert counts.sum() == 220
    assert batches.report.names.keys() == {'22.png'}
    again = pipeline.batches(ours, batch_size=2, seed=0, start=100, max_corrupt=1)
    assert np.concatenate([b['text'] for b in itertools.islice(again, 10)]).tolist() == seen[200:]
    again.close()


def test_an_example_has_the_shape_of_its_bucket_and_tells_how_it_was_cut(folder):
    ours = source(folder)
    example = ours[9]  # 60 wide, 20 high
    assert example['image'].shape == (*ours.shape(9), 3) == (16, 48, 3)
    assert example['size'].tolist() == [20, 60, 0, 0, 16, 48]
    assert example['text'] == ours.caption(9) == '9'
    assert ours.name(9) == '09.png'
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours))[9]['image'], example['image'])


def test_sizes_are_measured_once_until_the_data_change(folder, monkeypatch, tmp_path):
    calls, measure = [], buckets.measure
    monkeypatch.setattr(buckets, 'measure', lambda inner: calls.append(1) or measure(inner))
    assert [source(folder).shape(0), source(folder, min_side=8).shape(0)] == [(32, 32)] * 2
    assert len(calls) == 1
    (tmp_path / '00.png').write_bytes(image(0, (60, 20)))
    assert source(folder).shape(0) == (16, 48)
    assert len(calls) == 2


def test_bad_settings_are_refused_at_once(folder):
    for settings in (dict(min_side=4), dict(min_side=40), dict(max_side=24), dict(multiple=0)):
        with pytest.raises(ValueError, match='multiple <= min_side <= image_size <= max_side'):
            buckets.Source(Folder(folder), **(dict(image_size=32, multiple=8) | settings))
    with pytest.raises(ValueError, match='image_size=16'):
        buckets.Source(Folder(folder, image_size=16), image_size=32, multiple=8)
