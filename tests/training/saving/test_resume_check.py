"""Which settings of a run may change when it goes on."""

import json

import pytest

from ldm_jax.training.saving import resume_check

CONFIG = {'run': {'num_steps': 10, 'keep': 2, 'parallel': {'kind': 'single'}}, 'optimizer': {'lr': 0.1}}


def changed(**run):
    return CONFIG | {'run': CONFIG['run'] | run}


def test_a_config_is_kept_and_recognised(tmp_path):
    for _ in range(2):
        resume_check.check(tmp_path / 'run', CONFIG)
        assert json.loads((tmp_path / 'run' / 'config.json').read_text()) == CONFIG
    assert [path.name for path in (tmp_path / 'run').iterdir()] == ['config.json']


def test_a_run_may_get_more_steps_and_other_upkeep(tmp_path, capsys):
    resume_check.check(tmp_path, CONFIG)
    more = changed(num_steps=20, keep=5, parallel={'kind': 'mesh'}, writers=['tensorboard'])
    resume_check.check(tmp_path, more)
    assert 'from 10 to 20' in capsys.readouterr().out
    assert json.loads((tmp_path / 'config.json').read_text()) == more


def test_what_would_train_something_else_is_refused_by_name(tmp_path):
    resume_check.check(tmp_path, CONFIG)
    for other, words in [
        (changed(num_steps=5), r"run.num_steps': \(10, 5\)"),
        (CONFIG | {'optimizer': {'lr': 0.2}}, r"optimizer.lr': \(0.1, 0.2\)"),
        (CONFIG | {'data': {'name': 'x'}}, r"data.name': \(None, 'x'\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            resume_check.check(tmp_path, other)
    assert json.loads((tmp_path / 'config.json').read_text()) == CONFIG
