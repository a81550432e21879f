"""Batches of a run, and the summary that identifies them."""

import numpy as np
import pytest

from ldm_jax.training import batch_loader
from ldm_jax.training.batch_loader import BatchLoader
from ldm_jax.training.parallel import backend as parallel
from ldm_jax.training.preemption import Preemption
from ldm_jax.training.run import Run
from tests.training.runs import SOURCE

RUN = Run(num_steps=10, batch_size=8)
SINGLE = parallel.backend(RUN.parallel, 8, {})


class HalfOf:
    """A backend of two processes, as one of them has it."""

    def __init__(self, process):
        self.process = process

    def rows(self, batch_size):
        return list(range(self.process, batch_size, 2))

    def shard(self, batch, batch_size):
        return batch


def feeds(step, spread=SINGLE, run=RUN):
    return BatchLoader(SOURCE, run, spread, Preemption(), step)


def test_it_goes_on_at_a_step():
    first, later = feeds(0), feeds(3)
    batches = [first.take() for _ in range(5)]
    for batch in batches[3:]:
        found = later.take()
        np.testing.assert_array_equal(found.host['x'], batch.host['x'])
        np.testing.assert_array_equal(found.devices['x'], batch.host['x'])
    first.used(batches[2])
    assert first.summary() == feeds(3).summary()
    feeds(3).check(first.summary())
    first.close()


def test_other_data_are_named():
    stored = feeds(3).summary()
    for change in (dict(seed=1), dict(batch_size=4)):
        run = Run(**{'num_steps': 10, 'batch_size': 8, **change})
        with pytest.raises(ValueError, match=next(iter(change))):
            feeds(3, run=run).check(stored)
    with pytest.raises(ValueError, match='batch_crc32'):
        feeds(4).check(stored)


def test_processes_have_rows_of_their_own_and_know_the_whole(monkeypatch):
    whole = feeds(0).take().host['x']
    for process in (0, 1):
        np.testing.assert_array_equal(feeds(0, HalfOf(process)).take().host['x'], whole[process::2])
    mine, other = feeds(3, HalfOf(0)), feeds(3, HalfOf(1))
    given = iter([np.arange(1, 8, 2), np.array([batch_loader._crc32(other._used, i) for i in range(4)])])
    monkeypatch.setattr(batch_loader.jax, 'process_count', lambda: 2)
    monkeypatch.setattr(
        batch_loader.multihost_utils, 'process_allgather', lambda a: np.stack([a, next(given)])
    )
    found = mine.summary()
    monkeypatch.undo()
    assert found == feeds(3).summary()


def test_images_are_of_the_same_examples_for_all_processes():
    expected = feeds(0).take().host['x']
    for spread, step in ((SINGLE, 0), (HalfOf(1), 5)):
        np.testing.assert_array_equal(feeds(step, spread).shown()['x'], expected)
