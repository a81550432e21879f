"""experiments/own_model/gallery.py: retrieval among real images, on points whose neighbours are known."""

import math

import numpy as np
import pytest

from experiments.own_model import gallery

# On a line: two emoji in two styles; the third image was not trained on.
LINE = gallery.Gallery(
    rows=np.array([[0.0], [1.0], [10.0], [11.0]]),
    keys=['cat a', 'cat b', 'dog a', 'dog b'],
    styles=['a', 'b', 'a', 'b'],
    trained=np.array([True, True, False, True]),
)


def test_the_right_image_is_found_among_the_nearest_alone():
    queries = np.array([[0.4], [0.4], [9.0], [0.0]])
    keys = ['cat a', 'cat b', 'dog a', 'dog b']
    assert gallery.found(queries, keys, LINE, k=1).tolist() == [True, False, True, False]
    assert gallery.found(queries, keys, LINE, k=2).tolist() == [True, True, True, False]
    assert gallery.found(queries, keys, LINE, k=4).all()


def test_nearest_is_every_distance_sorted(monkeypatch):
    monkeypatch.setattr(gallery, 'BLOCK', 3)
    rng = np.random.default_rng(0)
    queries, rows = rng.standard_normal((7, 4)), rng.standard_normal((20, 4))
    distances, indices = gallery.nearest(queries, rows, 5)
    every = np.linalg.norm(queries[:, None] - rows, axis=2)
    np.testing.assert_allclose(distances, np.sort(every, axis=1)[:, :5])
    np.testing.assert_array_equal(indices, np.argsort(every, axis=1)[:, :5])


def test_chance_is_what_random_images_find():
    twice = gallery.Gallery(np.zeros((10, 1)), ['x'] * 2 + ['y'] * 8, ['a'] * 10, np.ones(10, bool))
    expected = 1 - math.comb(8, 3) / math.comb(10, 3)
    assert gallery.chance(['x'], twice, 3) == pytest.approx(expected)
    assert gallery.chance(['none'], twice, 3) == 0
    draws = np.random.default_rng(0).permuted(np.tile(np.arange(10), (20_000, 1)), axis=1)[:, :3]
    assert (draws < 2).any(1).mean() == pytest.approx(expected, abs=0.02)


def test_a_copy_is_nearer_to_another_styles_training_image_than_to_its_own_reconstruction():
    queries = np.array([[0.9], [0.9], [10.1], [0.9]])
    own = np.array([[0.0], [0.85], [11.0], [3.0]])
    # The second is nearer to its own, the third's neighbour was not trained on, the fourth's is of its style.
    assert gallery.copies(queries, ['a', 'a', 'b', 'b'], own, LINE).tolist() == [True, False, False, False]


def test_intervals_are_wilsons():
    # Of 10 with 0 and with 5 hits, as in the tables of Brown, Cai and DasGupta (2001) by the same formula.
    share, lower, upper = gallery.wilson(np.zeros(10, bool))
    assert (share, lower) == (0, pytest.approx(0, abs=1e-12))
    assert upper == pytest.approx(0.2775, abs=1e-4)
    share, lower, upper = gallery.wilson(np.arange(10) < 5)
    assert (lower, upper) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))


def test_a_gallery_is_of_one_length():
    with pytest.raises(ValueError, match="'rows': 1, 'keys': 2"):
        gallery.Gallery(np.zeros((1, 2)), ['x', 'y'], ['a'], np.ones(1, bool))
