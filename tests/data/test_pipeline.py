"""Batches are a pure function of seed and number; corrupt examples are replaced and named."""

import dataclasses
import itertools
import logging
from typing import Any

import numpy as np
import pytest

from ldm_jax.data import pipeline
from ldm_jax.data.corrupt import Corrupt, Report, TooManyCorrupt

SOURCE = pipeline.InMemory({'n': np.arange(10), 'x': np.arange(20.0).reshape(10, 2)})


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Numbers with a random one beside them, some of them broken; perhaps in buckets."""

    count: int
    broken: tuple[int, ...] = ()
    buckets: Any = dataclasses.field(default=None)

    def __post_init__(self):
        if self.buckets is None:
            object.__setattr__(self, 'buckets', (range(self.count),))

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if i in self.broken:
            raise Corrupt(self.name(i), 'broken')
        return {'n': np.int64(i), 'text': f'number {i}'}

    def view(self, i, rng):
        return self[i] | {'draw': rng.random()}

    def name(self, i):
        return f'file {i}'


def first(count, source=SOURCE, **settings):
    batches = pipeline.batches(source, **settings)
    found = list(itertools.islice(batches, count))
    batches.close()
    return found


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


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


@pytest.mark.parametrize('count', [1, 2, 4])
def test_hosts_share_a_batch_row_by_row(count):
    source = Numbers(23, broken=(3, 11), buckets=(range(0, 9), range(9, 23)))
    whole = first(12, source, batch_size=8, seed=5, max_corrupt=1)
    hosts = [
        first(
            9, source, batch_size=8, seed=5, start=3, rows=np.arange(8).reshape(count, -1)[i], max_corrupt=1
        )
        for i in range(count)
    ]
    joined = [
        {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        for parts in zip(*hosts, strict=True)
    ]
    assert_same(joined, whole[3:])


def test_threads_and_prefetch_do_not_matter():
    source = Numbers(50)
    plain = first(20, source, batch_size=4, seed=0, threads=1, prefetch=1)
    assert_same(first(20, source, batch_size=4, seed=0, threads=8, prefetch=16), plain)


@pytest.mark.slow  # three processes start
def test_worker_processes_do_not_matter():
    source = Numbers(40, broken=(7,))
    plain = first(12, source, batch_size=8, seed=2)
    batches = pipeline.batches(source, batch_size=8, seed=2, start=2, workers=2)
    assert_same(list(itertools.islice(batches, 10)), plain[2:])
    batches.close()
    assert batches.report.names == {'file 7': 'broken'}
    assert batches.report.read == 80


def test_showings_of_an_example_differ_from_epoch_to_epoch():
    rows = [(int(b['n'][0]), float(b['draw'][0])) for b in first(40, Numbers(10), batch_size=1, seed=0)]
    assert len({draw for _, draw in rows}) == 40
    again = [(int(b['n'][0]), float(b['draw'][0])) for b in first(40, Numbers(10), batch_size=1, seed=0)]
    assert rows == again


def test_a_corrupt_example_is_replaced_by_the_next_of_its_epoch_logged_and_counted(caplog):
    good, bad = Numbers(10), Numbers(10, broken=(4, 6))
    expected = [int(n) for batch in first(5, good, batch_size=2, seed=1) for n in batch['n']]
    with caplog.at_level(logging.WARNING):
        batches = pipeline.batches(bad, batch_size=2, seed=1, max_corrupt=0.5)
        found = [int(n) for batch in itertools.islice(batches, 5) for n in batch['n']]
        batches.close()
    for i, n in enumerate(expected):
        if n in bad.broken:  # and the order is that of an epoch, which wraps around
            n = next(m for m in (expected[i:] + expected[:i]) if m not in bad.broken)
        assert found[i] == n
    assert batches.report.names == {'file 4': 'broken', 'file 6': 'broken'}
    assert batches.report.read == 10
    assert batches.report.skipped >= 2
    assert sum('file 4: broken' in message for message in caplog.messages) == 1


def test_a_replacement_is_of_the_same_bucket():
    source = Numbers(12, broken=(1, 2, 3), buckets=(range(0, 5), range(5, 12)))
    for batch in first(30, source, batch_size=3, seed=0, max_corrupt=1):
        assert len(set(batch['n'] < 5)) == 1
        assert not set(batch['n']) & {1, 2, 3}


def test_too_many_corrupt_examples_are_an_error():
    broken = Numbers(100, broken=tuple(range(30)))
    with pytest.raises(TooManyCorrupt, match=r'share of 0.1.*file \d+: broken'):
        first(50, broken, batch_size=10, seed=0)
    first(50, broken, batch_size=10, seed=0, max_corrupt=0.5)
    with pytest.raises(ValueError, match='5 examples in a row.*still there'):
        first(1, Numbers(5, broken=tuple(range(5))), batch_size=1, seed=0, max_corrupt=1)


def test_the_time_spent_waiting_is_reported():
    batches = pipeline.batches(SOURCE, batch_size=2, seed=0)
    next(batches)
    assert batches.waited > 0
    batches.close()


def test_in_order_visits_everything_once_and_bucket_by_bucket():
    batches = list(pipeline.in_order(SOURCE, 4))
    assert [len(batch['n']) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([batch['n'] for batch in batches]), np.arange(10))
    report = Report(limit=1)
    source = Numbers(9, broken=(2, 8), buckets=((0, 2, 4, 6), (1, 3, 5, 7), (8,)))
    batches = list(pipeline.in_order(source, 3, report))
    assert [batch['n'].tolist() for batch in batches] == [[0, 4], [6], [1, 3, 5], [7]]
    assert report.names == {'file 2': 'broken', 'file 8': 'broken'}
    assert report.read == 7


def test_mapped_applies_its_function_to_each_showing_and_keeps_the_rest():
    source = Numbers(10, buckets=(range(4), range(4, 10)))
    mapped = pipeline.Mapped(source, lambda example: {'y': example['n'] + 1} | example)
    assert len(mapped) == 10
    assert mapped[3]['y'] == 4
    rng = np.random.default_rng
    assert mapped.view(3, rng(0)) == {'y': 4} | source.view(3, rng(0))
    assert mapped.buckets == source.buckets
    assert mapped.name(3) == 'file 3'


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(batch_size=0), 'batch_size.*0'),
        (dict(batch_size=6, rows=()), r'rows.*\[\]'),
        (dict(batch_size=4, rows=range(2, 5)), 'rows.*4'),
        (dict(batch_size=4, start=-1), 'start.*-1'),
        (dict(batch_size=4, threads=0), 'threads.*0'),
        (dict(batch_size=4, max_corrupt=2), '0 to 1; got 2'),
    ],
)
def test_bad_settings_are_refused_at_once(settings, words):
    with pytest.raises(ValueError, match=words):
        pipeline.batches(SOURCE, seed=0, **settings)


def test_an_empty_source_and_images_of_several_sizes_are_refused():
    with pytest.raises(ValueError, match='no examples'):
        pipeline.batches(Numbers(0), batch_size=1, seed=0)
    with pytest.raises(ValueError, match=r'several shapes.*crops'):
        pipeline.stack([{'image': np.zeros((2, 3))}, {'image': np.zeros((3, 2))}])


@dataclasses.dataclass(frozen=True)
class Captioned(Numbers):
    """Numbers, some of which have two captions."""

    def captions(self, i):
        return (f'number {i}',) if i % 2 else (f'number {i}', f'{i} things')

    def view(self, i, rng):
        return self[i] | {'text': self.captions(i)[rng.integers(len(self.captions(i)))]}


def test_captions_are_drawn_anew_in_each_epoch_and_again_by_a_resumed_run():
    source = pipeline.Mapped(Captioned(4), lambda row: row)
    batches = first(40, source, batch_size=4, seed=1)
    drawn = [sorted(batch['text'].tolist()) for batch in batches]  # a batch is an epoch
    assert {len({text for text in epoch}) for epoch in drawn} == {4}
    assert {text for epoch in drawn for text in epoch} == {
        'number 0', '0 things', 'number 1', 'number 2', '2 things', 'number 3',
    }  # fmt: skip
    assert_same(first(5, source, batch_size=4, seed=1, start=30), batches[30:35])


def test_in_order_an_example_has_its_first_caption_or_every_one():
    source = pipeline.Mapped(Captioned(3), lambda row: {'length': len(row['text']), 'n': row['n']})
    assert [batch['n'].tolist() for batch in pipeline.in_order(source, 3)] == [[0, 1, 2]]
    found = list(pipeline.in_order(source, 3, every_caption=True))
    assert [batch['n'].tolist() for batch in found] == [[0, 0, 1, 2, 2]]
    assert pipeline.captions(source, 2) == ('number 2', '2 things')
    assert pipeline.captions(Numbers(1), 0) == ['number 0']
