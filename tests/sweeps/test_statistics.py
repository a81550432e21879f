"""Intervals, paired differences, fronts."""

import numpy as np

from ldm_jax.evaluation import fd
from ldm_jax.sweeps import statistics, tables
from ldm_jax.sweeps.definition import Cell
from ldm_jax.sweeps.statistics import Estimate, Row

RANDOM = np.random.default_rng(0)


def test_the_interval_of_a_mean_is_that_of_normal_theory():
    scores = RANDOM.normal(3.0, 2.0, 400)
    found = statistics.of_scores(scores)
    half = 1.96 * scores.std() / 20
    np.testing.assert_allclose(found.interval, (scores.mean() - half, scores.mean() + half), atol=0.03)
    assert statistics.of_scores(scores[:1]).interval == (scores[0], scores[0])


def test_paired_differences_see_what_overlapping_intervals_hide():
    shared = RANDOM.normal(0.0, 5.0, 100)
    a = statistics.of_scores(shared + RANDOM.normal(0.5, 0.2, 100))
    b = statistics.of_scores(shared + RANDOM.normal(0.0, 0.2, 100))
    assert a.interval[0] < b.interval[1]
    assert not statistics.tie(a, b)
    assert statistics.tie(a, a)
    low, high = statistics.difference(a, b).interval
    assert 0.4 < low < 0.5 < high < 0.6


def test_fd_of_gaussians_lies_in_its_interval():
    reference = RANDOM.standard_normal((4000, 3))
    rows = RANDOM.standard_normal((3000, 3)) * [1, 2, 1] + [1, 0, 0]
    found = statistics.of_set(fd.Metric(), rows, reference)['fd']
    low, high = found.interval
    assert low < 2.0 < high
    assert high - low < 0.5


def _rows(*points):
    return [
        Row({}, [Cell({}, str(i))], {'cost': Estimate(c, 1), 'q': Estimate(q, 1)})
        for i, (c, q) in enumerate(points)
    ]


def test_the_front_holds_what_nothing_beats():
    rows = _rows((1, 9.0), (1, 8.0), (2, 8.5), (3, 5.0), (4, 5.0), (5, 1.0))
    assert [row.cells[0].key for row in tables.front(rows, 'cost', 'q', -1)] == ['1', '3', '5']
    assert [row.cells[0].key for row in tables.front(rows, 'cost', 'q', 1)] == ['0']
