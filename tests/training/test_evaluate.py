"""run.evaluate and run.keep_best in the loop: measured when due, the best state kept through restarts."""

import dataclasses
import json

import numpy as np
import pytest

from ldm_jax.training.run import Run
from ldm_jax.training.saving import stored_steps
from tests.training import runs

SETTINGS = dict(log_every=2, save_every=4, evaluate=dict(every=4, metrics=['x']), keep_best='x')


@dataclasses.dataclass
class Evaluator:
    """The distance of the step from 9, beside the weights' sum, of which every state has its own."""

    better: int = -1
    states: dict = dataclasses.field(default_factory=dict)

    def __call__(self, state):
        kept = runs.plain(state)
        self.states[int(kept.step)] = kept
        return {'x': abs(float(kept.step) - 9.0), 'sum': float(np.sum(kept.params['kernel']))}

    def sign(self, name):
        return self.better


def lines(workdir):
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


def test_the_best_state_is_kept_and_a_run_in_two_parts_is_as_one(tmp_path):
    whole, found = Evaluator(), []
    runs.run(tmp_path / 'whole', 14, evaluator=whole, finished=found.append, **SETTINGS)
    assert [(line['step'], line.get('x')) for line in lines(tmp_path / 'whole')] == [
        (2, None), (4, 5.0), (6, None), (8, 1.0), (10, None), (12, 3.0), (14, 5.0)
    ]  # fmt: skip
    assert stored_steps.listed(tmp_path / 'whole' / 'best') == [8]
    runs.assert_same(found[0], whole.states[8])
    parts = Evaluator()
    runs.run(tmp_path / 'parts', 10, evaluator=parts, **SETTINGS)
    runs.run(tmp_path / 'parts', 14, evaluator=parts, finished=found.append, **SETTINGS)
    runs.assert_same(found[1], found[0])
    runs.run(tmp_path / 'more', 14, evaluator=Evaluator(better=1), finished=found.append, **SETTINGS)
    assert stored_steps.listed(tmp_path / 'more' / 'best') == [4]


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(evaluate=dict(every=3, metrics=['x']), log_every=2), 'multiple of run.log_every'),
        (dict(evaluate=dict(every=0, metrics=['x'])), 'every must be at least 1'),
        (dict(evaluate=dict(every=50)), 'metrics names none'),
        (dict(keep_best='x'), 'give that too'),
    ],
)
def test_wrong_settings_are_one_line(settings, words):
    with pytest.raises(ValueError, match=words):
        Run(10, 8, **settings)


def test_a_best_that_is_not_measured_is_named(tmp_path):
    with pytest.raises(ValueError, match="keep_best is 'y'; measured were"):
        runs.run(tmp_path, 4, evaluator=Evaluator(), **(SETTINGS | dict(keep_best='y')))
