"""Counting and naming what cannot be read."""

import logging
import pickle

import pytest

from ldm_jax.data.corrupt import Corrupt, Report, TooManyCorrupt


def test_an_error_keeps_its_name_and_reason_between_processes():
    error = pickle.loads(pickle.dumps(Corrupt('a/b.png', 'cut off')))
    assert (error.name, error.reason, str(error)) == ('a/b.png', 'cut off', 'a/b.png: cut off')


def test_each_example_is_named_once_and_counted_each_time(caplog):
    report = Report(limit=0.5)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            report.add(4, [('x', 'broken')])
        report.add(4, [('y', 'gone')])
    assert (report.read, report.skipped, report.names) == (16, 4, {'x': 'broken', 'y': 'gone'})
    assert [message.split(': ', 1)[1] for message in caplog.messages] == ['x: broken', 'y: gone']
    assert str(report) == '16 examples read; corrupt and left out: 2, met 4 times'


def test_once_is_no_times():
    report = Report()
    report.add(7, [('file', 'broken')])
    assert str(report) == '7 examples read; corrupt and left out: 1, met once'


@pytest.mark.parametrize(
    ('good', 'bad', 'stops'), [(0, 9, False), (0, 10, True), (89, 10, True), (90, 10, False)]
)
def test_the_share_is_judged_from_the_tenth_on(good, bad, stops):
    report = Report(limit=0.1)
    report.add(good)
    failures = [(f'file {i}', 'broken') for i in range(bad)]
    if stops:
        with pytest.raises(TooManyCorrupt, match=f'10 of {good + 10} examples.*max_corrupt.*file 9: broken'):
            report.add(0, failures)
    else:
        report.add(0, failures)
