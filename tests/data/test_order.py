"""The order of examples against a simulation that queues them up."""

import collections

import numpy as np
import pytest

from ldm_jax.data.order import Order

BUCKETS = (range(0, 7), range(7, 20), range(20, 21), range(21, 44))


def indices(order, n):
    return [next(order.candidates(place)) for place in order.places(n)]


def simulated(counts, batch_size, epochs):
    """For each epoch the buckets of the batches that become full when each bucket's examples queue up."""
    queued, found = [0] * len(counts), []
    for _ in range(epochs):
        full = []
        for bucket, count in enumerate(counts):
            for _ in range(count):
                queued[bucket] += 1
                if queued[bucket] == batch_size:
                    queued[bucket] = 0
                    full.append(bucket)
        found.append(full)
    return found


@pytest.mark.parametrize('batch_size', [1, 4, 30])
def test_buckets_take_turns_as_their_queues_fill(batch_size):
    order, n = Order(BUCKETS, batch_size, seed=3), 0
    for full in simulated([7, 13, 1, 23], batch_size, epochs=12):
        buckets = [order.places(n + i)[0][0] for i in range(len(full))]
        assert sorted(buckets) == full
        n += len(full)


def test_batches_are_of_one_bucket_and_every_example_comes_once_an_epoch_of_it():
    order, streams = Order(BUCKETS, 4, seed=0), collections.defaultdict(dict)
    for n in range(300):
        places = order.places(n)
        assert len({bucket for bucket, _ in places}) == 1
        for place in places:
            bucket, position = place
            assert position not in streams[bucket]  # no position twice
            streams[bucket][position] = next(order.candidates(place))
    for bucket, members in enumerate(BUCKETS):
        epochs = collections.defaultdict(list)
        for position, (epoch, index) in streams[bucket].items():
            assert epoch == position // len(members)
            epochs[epoch].append(index)
        whole = [tuple(epochs[e]) for e in range(max(epochs)) if len(epochs[e]) == len(members)]
        assert len(whole) >= 20
        assert all(sorted(epoch) == list(members) for epoch in whole)
        if len(members) > 5:
            assert len(set(whole)) == len(whole)


def test_turns_are_shuffled_and_seeds_differ():
    turns = [[Order(BUCKETS, 2, seed).places(n)[0][0] for n in range(40)] for seed in (0, 1)]
    assert turns[0] != turns[1]
    assert turns[0][:22] != sorted(turns[0][:22])


def test_one_bucket_is_cut_without_turns_whatever_the_batch_size():
    one, many = Order((range(50),), 1, seed=-7), Order((range(50),), 12, seed=-7)
    stream = [indices(one, n)[0] for n in range(120)]
    assert [pair for n in range(10) for pair in indices(many, n)] == stream
    assert [epoch for epoch, _ in stream] == [0] * 50 + [1] * 50 + [2] * 20


def test_candidates_are_the_rest_of_the_epoch_in_its_order():
    order = Order((range(6),), 1, seed=0)
    epoch = [indices(order, 6 + n)[0] for n in range(6)]
    assert list(order.candidates((0, 8))) == epoch[2:] + epoch[:2]


def test_a_billion_examples_need_no_table():
    order = Order((range(10**9),), 1024, seed=0)
    found = [index for _, index in indices(order, 10**7)]
    assert len(set(found)) == 1024
    assert np.std(found) > 10**8


def test_showings_have_randomness_of_their_own():
    order = Order((range(6),), 1, seed=0)
    draws = {order.rng(epoch, index).random() for epoch in range(4) for index in range(4)}
    assert len(draws) == 16
    assert order.rng(2, 3).random() == Order((range(99),), 7, seed=0).rng(2, 3).random()
    assert order.rng(2, 3).random() != Order((range(6),), 1, seed=1).rng(2, 3).random()
