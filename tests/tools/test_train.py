"""Which settings of a run may change when it goes on, and what kills leave behind."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIG = {'run': {'num_steps': 10, 'keep': 2, 'parallel': {'kind': 'single'}}, 'optimizer': {'lr': 0.1}}


@pytest.fixture(scope='module')
def train():
    """tools/train.py as a module; it defines flags, so it is imported once."""
    spec = importlib.util.spec_from_file_location('train_tool', ROOT / 'tools' / 'train.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(**run):
    return CONFIG | {'run': CONFIG['run'] | run}


def test_a_config_is_kept_and_recognised(tmp_path, train):
    for _ in range(2):
        train.check_same_settings(tmp_path / 'run', CONFIG)
        assert json.loads((tmp_path / 'run' / 'config.json').read_text()) == CONFIG
    assert [path.name for path in (tmp_path / 'run').iterdir()] == ['config.json']


def test_a_run_may_get_more_steps_and_other_upkeep(tmp_path, train, capsys):
    train.check_same_settings(tmp_path, CONFIG)
    more = changed(num_steps=20, keep=5, parallel={'kind': 'mesh'}, writers=['tensorboard'])
    train.check_same_settings(tmp_path, more)
    assert 'from 10 to 20' in capsys.readouterr().out
    assert json.loads((tmp_path / 'config.json').read_text()) == more


def test_what_would_train_something_else_is_refused_by_name(tmp_path, train):
    train.check_same_settings(tmp_path, CONFIG)
    for other, words in [
        (changed(num_steps=5), r"run.num_steps': \(10, 5\)"),
        (CONFIG | {'optimizer': {'lr': 0.2}}, r"optimizer.lr': \(0.1, 0.2\)"),
        (CONFIG | {'data': {'name': 'x'}}, r"data.name': \(None, 'x'\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            train.check_same_settings(tmp_path, other)
    assert json.loads((tmp_path / 'config.json').read_text()) == CONFIG


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 8])
def test_nothing_is_lost_by_kills(tmp_path, devices):
    command = [
        sys.executable,
        'tools/kill_train.py',
        '--kills',
        '6',
        '--num_steps',
        '30',
        '--devices',
        str(devices),
    ]
    command += ['--config', 'tests/training/toy_config.py', '--workdir', str(tmp_path)]
    command += ['--', f'--config.run.parallel.kind={"single" if devices == 1 else "mesh"}']
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | {'PYTHONPATH': str(ROOT)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found['kills'] == 6
    assert found['unreadable'] == found['lost'] == found['stale'] == found['different'] == 0
