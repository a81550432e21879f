"""Batches are a pure function of seed and number."""

import itertools

import numpy as np
import pytest

from ldm_jax.data import pipeline

SOURCE = pipeline.InMemory({'n': np.arange(10), 'x': np.arange(20.0).reshape(10, 2)})


def first(count, **settings):
    return list(itertools.islice(pipeline.batches(SOURCE, **settings), count))


def test_a_resumed_stream_continues_the_same_batches():
    whole = first(9, batch_size=4, seed=3)
    for start in (0, 1, 5):
        resumed = first(3, batch_size=4, seed=3, start=start)
        for a, b in zip(whole[start:], resumed, strict=False):
            np.testing.assert_array_equal(a['n'], b['n'])


def test_every_epoch_holds_each_example_once_in_an_order_of_its_own():
    numbers = np.concatenate([batch['n'] for batch in first(15, batch_size=2, seed=0)]).reshape(3, 10)
    assert (np.sort(numbers, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in numbers}) == 3


def test_seeds_differ():
    one, two = (np.concatenate([b['n'] for b in first(5, batch_size=2, seed=s)]) for s in (0, 1))
    assert (one != two).any()


def test_rows_stay_together():
    for batch in first(3, batch_size=4, seed=0):
        np.testing.assert_array_equal(batch['x'][:, 0], 2 * batch['n'])


def test_in_order_visits_everything_once():
    batches = list(pipeline.in_order(SOURCE, 4))
    assert [len(batch['n']) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([batch['n'] for batch in batches]), np.arange(10))


def test_mapped_applies_its_function_to_each_example():
    mapped = pipeline.Mapped(SOURCE, lambda example: {'y': example['n'] + 1})
    assert len(mapped) == 10
    assert mapped[3] == {'y': 4}


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match='batch_size.*0'):
        pipeline.batches(SOURCE, batch_size=0, seed=0)
