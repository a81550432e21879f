"""A run from its config: what a failed start, a second start and a resumed one may do."""

import json
import subprocess
import sys

import numpy as np
import pytest

import configs
from ldm_jax.checkpoints import claims
from ldm_jax.training import dry_run, overrides, start
from ldm_jax.training.monitoring import writers
from ldm_jax.training.preemption import Preemption

CONFIG = configs.plain(configs.load('tests/training/toy_config.py'))


def settings(*given):
    return overrides.apply(CONFIG, [('run.num_steps', '6'), ('run.log_every', '2'), *given])


def train(workdir, *given, allowed=(), monkeypatch=None):
    start.train(settings(*given), workdir, Preemption(), allowed)


@pytest.fixture(autouse=True)
def _no_export(monkeypatch):
    """The model of a line is no model of ours."""
    monkeypatch.setattr(start.from_config, 'export', lambda *args: None)


def lrs(workdir):
    return {line['step']: line['lr'] for line in writers.read_metrics(workdir)}


def test_a_failed_first_start_does_not_lock_the_workdir(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        train(tmp_path / 'run', ('data.name', 'image_folder'), ('data.path', str(tmp_path / 'nowhere')))
    assert not (tmp_path / 'run' / 'config.json').exists()
    train(tmp_path / 'run')
    assert json.loads((tmp_path / 'run' / 'config.json').read_text()) == settings()


def test_nor_does_one_that_fails_while_it_begins(tmp_path, monkeypatch):
    def broken(*args):
        raise ValueError('no images')

    with monkeypatch.context() as patch:
        patch.setattr('tests.training.toy.Stage.image', broken)
        with pytest.raises(ValueError, match=r'cannot be drawn \(ValueError: no images\).*run.image_every=0'):
            train(tmp_path)
        train(tmp_path / 'without', ('run.image_every', '0'))
        assert not (tmp_path / 'without' / 'images').exists()
    train(tmp_path, ('optimizer.lr', '0.5'))
    assert sorted(path.name for path in (tmp_path / 'images').iterdir()) == ['0000006_rows.png']


@pytest.mark.slow
def test_a_rate_may_change_when_it_is_asked_for_and_that_is_recorded(tmp_path):
    train(tmp_path, ('optimizer.warmup_steps', '0'), ('optimizer.curve', 'constant'))
    more = [('run.num_steps', '10'), ('optimizer.warmup_steps', '0'), ('optimizer.curve', 'constant')]
    more.append(('optimizer.lr', '0.001'))
    with pytest.raises(ValueError, match='--allow_change optimizer.lr'):
        train(tmp_path, *more)
    assert json.loads((tmp_path / 'config.json').read_text())['optimizer']['lr'] == 0.01
    train(tmp_path, *more, allowed=['optimizer.lr'])
    found = lrs(tmp_path)
    assert list(found) == [2, 4, 6, 8, 10]
    np.testing.assert_allclose(list(found.values()), [0.01] * 3 + [0.001] * 2, rtol=1e-6)
    recorded = [(6, {'optimizer.lr': [0.01, 0.001], 'run.num_steps': [6, 10]})]
    assert writers.read_changes(tmp_path) == recorded
    assert json.loads((tmp_path / 'config.json').read_text())['optimizer']['lr'] == 0.001
    text = (tmp_path / 'report.html').read_text()
    assert '<td>optimizer.lr</td><td>6</td><td>0.01</td><td>0.001</td>' in text
    train(tmp_path, *more)  # the run's own now
    assert writers.read_changes(tmp_path) == recorded


def test_a_warm_up_longer_than_the_run_is_clipped_with_a_word(tmp_path, capsys):
    train(tmp_path, ('optimizer.warmup_steps', '100'))
    assert 'optimizer.warmup_steps is 100, clipped to the 6 steps' in capsys.readouterr().err
    np.testing.assert_allclose(lrs(tmp_path)[6], 0.01 * 4.5 / 5, rtol=1e-6)  # the mean of steps 5 and 6


def test_a_second_training_in_a_workdir_is_refused_by_name(tmp_path):
    holder = (
        'import sys\nfrom ldm_jax.checkpoints import claims\n'
        f'with claims.claimed({str(tmp_path / "run")!r}):\n    print("held", flush=True)\n    sys.stdin.read()\n'
    )
    with subprocess.Popen(
        [sys.executable, '-c', holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        other.stdout.readline()
        with pytest.raises(FileExistsError, match=f'process {other.pid} '):
            train(tmp_path / 'run')
        assert not (tmp_path / 'run').exists()
        other.kill()
    train(tmp_path / 'run')  # the system let go of it
    assert not list(tmp_path.glob(f'*{claims.CLAIM}'))


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (('run.seed', '-1'), 'seed'),
        (('run.ema.main.decay', '1'), 'decay'),
        (('optimizer.lr', '0'), 'lr must be above 0'),
        (('optimizer.curve.name', 'cosin'), "'cosine'"),
        (('optimizer.clip_norm', '-1'), 'clip_norm'),
        (('optimizer.weight_decay', '-0.1'), 'weight_decay'),
        (('optimizer.b1', '1'), 'b1'),
        (('optimizer.warmup_steps', '-1'), 'warmup_steps'),
        (('export.dtype', 'int8'), 'export.dtype'),
        (('run.loader.threads', '0'), 'run.loader.threads'),
        (('run.writers', 'tensorbord'), "'tensorboard'"),
        (('run.nonfinite', 'ignore'), 'run.nonfinite'),
        (('run.profile', '(5, 3)'), 'run.profile'),
    ],
)
def test_what_is_out_of_range_is_met_before_anything_is_opened(given, words):
    with pytest.raises(ValueError, match=words):
        start.check(settings(given))


def test_a_dry_run_describes_and_trains_nothing(capsys):
    text = dry_run.describe(settings(('optimizer.weight_decay', '0.1')))
    assert json.loads(text[: text.index('\n}') + 2])['optimizer']['weight_decay'] == 0.1
    assert '12 examples; a batch on 1 devices:\n  x [8, 3] float32' in text
    assert 'kernel: 3 in 1 arrays, trained' in text
    assert 'memory of a device during a step:' in text
