"""Averages over steps, by hand."""

import numpy as np
import pytest

from ldm_jax.training.monitoring.metric_buffer import MetricBuffer, NonFinite


def filled(*steps, **settings):
    window = MetricBuffer(lambda metrics: metrics, **settings)
    for n, metrics in enumerate(steps, 1):
        window.add(n, {'x': np.arange(3) + n}, {name: np.asarray(value) for name, value in metrics.items()})
    return window


def test_means_are_of_what_is_finite():
    found = filled(dict(loss=1.0), dict(loss=np.nan), dict(loss=4.0)).close()
    assert found == {'loss': 2.5, 'nonfinite': 1.0, 'corrupt': 0.0}


def test_means_of_parts_are_weighted_by_their_counts():
    steps = [
        dict(loss=1.0, by_t=[2.0, np.nan, np.nan], by_t_count=[3.0, 0.0, 0.0]),
        dict(loss=1.0, by_t=[6.0, 5.0, np.nan], by_t_count=[1.0, 2.0, 0.0]),
    ]
    found = filled(*steps).close()
    assert found['by_t'][:2] == [(3 * 2 + 6) / 4, 5.0]
    assert np.isnan(found['by_t'][2])
    assert found['by_t_count'] == [4.0, 2.0, 0.0]


def test_the_steps_of_an_open_window_are_enough_to_go_on_from():
    steps = [dict(loss=0.1 * n, nonfinite=0) for n in range(6)]
    first = filled(*steps[:4])
    second = MetricBuffer(lambda metrics: metrics, first.values())
    for n, metrics in enumerate(steps[4:]):
        second.add(n, {}, metrics)
    assert second.close() == filled(*steps).close()


def test_what_could_not_be_read_is_summed_over_steps_and_processes_once():
    # Another process has one each step.
    window = MetricBuffer(lambda metrics: metrics, together=lambda counts: counts + 1)
    for n, corrupt in enumerate((0, 3)):
        window.add(n, {}, {'loss': 1.0}, corrupt)
    assert [values['corrupt'] for values in window.values()] == [1.0, 4.0]
    window.add(2, {}, {'loss': 1.0}, 1)
    assert window.close()['corrupt'] == 1 + 4 + 2


def test_a_step_is_looked_at_soon_and_named(tmp_path):
    with pytest.raises(NonFinite, match=r"Step 2 .*'grad_norm'"):
        filled(
            *[dict(loss=1.0, grad_norm=np.inf if n == 1 else 1.0, nonfinite=float(n == 1)) for n in range(5)],
            stop=True,
            folder=tmp_path,
        )
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(np.load(path)['x'], [2, 3, 4])
