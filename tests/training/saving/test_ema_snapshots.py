"""Averages made after a run are those that the run would have kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ldm_jax.checkpoints import checksums, store
from ldm_jax.training import ema, from_config, loop
from ldm_jax.training.saving import ema_snapshots, stored_steps
from tests.training import toy, toy_config

ROOT = Path(__file__).parents[3]
SPECS = dict(
    power_05=dict(name='power', sigma_rel=0.05),
    power_10=dict(name='power', sigma_rel=0.1),
    kept=dict(name='power', sigma_rel=0.07),  # the average made of the other two, as the run itself had it
)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run of toy.Stage with snapshots every fifth step of 120."""
    workdir = tmp_path_factory.mktemp('run')
    config = json.loads(toy_config.get_config().to_json())
    config['run'] |= dict(num_steps=120, save_every=5, keep_every=5, image_every=120, ema=SPECS)
    run = loop.Run(**config['run'])
    stage = toy.Stage()
    loop.train(from_config.work(config, stage, run), stage.prepare(range(64)), workdir, run, config=config)
    (workdir / 'config.json').write_text(json.dumps(config))
    return workdir


def parted(workdir):
    """The snapshots of the first two averages, and those of the third by step."""
    found = ema_snapshots.of_run(workdir)
    others = [snapshot for snapshot in found if snapshot.name != 'kept']
    return others, {snapshot.profile.step: snapshot for snapshot in found if snapshot.name == 'kept'}


@pytest.mark.slow
def test_the_snapshots_are_those_of_the_kept_steps(workdir):
    others, kept = parted(workdir)
    assert sorted(kept) == list(range(5, 121, 5))
    assert [s.profile for s in others[:2]] == [ema.Profile(5, 0.05), ema.Profile(5, 0.1)]


@pytest.mark.slow
@pytest.mark.parametrize('step', [120, 60, 45])
def test_another_width_is_what_the_run_itself_would_have_averaged(workdir, step):
    others, kept = parted(workdir)
    found, misfit = ema_snapshots.average(others, ema.Profile(step, 0.07))
    exact, newest = (s.read()['kernel'] for s in (kept[step], kept[120]))
    assert misfit < 0.06
    spread = np.abs(np.stack([s.read()['kernel'] for s in others]) - exact).max(0)
    assert (np.abs(found['kernel'] - exact) < 0.02 * spread + 1e-5).all()
    if step < 120:
        assert (np.abs(found['kernel'] - exact) < 0.1 * np.abs(newest - exact)).all()


def test_the_misfit_is_the_distance_of_the_profiles():
    # On a grid of time: the weighted sum of densities less the wanted one.
    profiles, wanted = [ema.Profile(50, 0.05), ema.Profile(100, 0.1)], ema.Profile(100, 0.15)
    weights, t = ema.coefficients(profiles, wanted), np.linspace(0, 100, 200_001)

    def density(profile):
        gamma = ema.exponent(profile.sigma_rel)
        return np.where(t <= profile.step, (gamma + 1) * t**gamma / profile.step ** (gamma + 1), 0)

    rest = sum(w * density(p) for w, p in zip(weights, profiles, strict=True)) - density(wanted)
    expected = np.sqrt(np.sum(rest**2) / np.sum(density(wanted) ** 2))
    np.testing.assert_allclose(ema.misfit(profiles, weights, wanted), expected, rtol=1e-3)
    assert ema.misfit(profiles, [0.0, 1.0], profiles[1]) < 1e-6


def test_a_run_without_such_averages_says_how_to_have_them(tmp_path):
    with pytest.raises(FileNotFoundError, match='no workdir'):
        ema_snapshots.of_run(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps({'run': {'ema': {'main': {'name': 'constant'}}}}))
    with pytest.raises(ValueError, match="name='power'"):
        ema_snapshots.of_run(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps({'run': {'ema': {'main': 'power'}}}))
    with pytest.raises(FileNotFoundError, match='no checkpoint'):
        ema_snapshots.of_run(tmp_path)


@pytest.mark.slow
def test_a_damaged_snapshot_is_named(workdir, tmp_path):
    snapshot = parted(workdir)[0][-1]
    record = stored_steps.read_record(snapshot.folder)
    assert {f'ema/{name}/kernel' for name in SPECS} <= record['arrays'].keys()
    with pytest.raises(checksums.Damaged, match='cannot be read'):
        ema_snapshots.Snapshot(tmp_path / '7', 'kept', snapshot.profile).read()


def command(*args):
    line = [sys.executable, str(ROOT / 'tools' / 'reconstruct_ema.py'), *map(str, args)]
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=env)


@pytest.mark.slow
def test_the_command_writes_a_model(workdir, tmp_path):
    listed = command('--workdir', workdir)
    assert '5 updates: power_05, sigma_rel 0.05' in listed.stdout, listed.stderr
    done = command('--workdir', workdir, '--sigma_rel', 0.12, '--step', 100, '--to', tmp_path / 'model')
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'misfit 0.0' in done.stdout
    assert 'poor' not in done.stdout
    leaves = store.open_model(tmp_path / 'model')
    expected, _ = ema_snapshots.average(ema_snapshots.of_run(workdir), ema.Profile(100, 0.12))
    np.testing.assert_allclose(leaves.read(['line/kernel'])['line/kernel'], expected['kernel'], rtol=1e-6)
    narrow = command('--workdir', workdir, '--sigma_rel', 0.005, '--to', tmp_path / 'narrow')
    assert 'a poor fit: keep more steps' in narrow.stdout, narrow.stderr


@pytest.mark.slow
def test_the_command_s_mistakes_end_in_one_line_and_leave_nothing(workdir, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'file').write_text('')
    for sigma_rel, step, to, words in [
        (0.1, 500, 'late', 'No snapshot is of 500 updates; --step takes one of [5, 10, '),
        (0.1, 47, 'between', 'No snapshot is of 47 updates'),
        (0.3, 100, 'wide', 'sigma_rel must be above 0 and below 0.2887'),
        (0.1, 100, 'mine', 'is not a model'),
        (0.1, 100, 'file/model', 'cannot be written'),
    ]:
        args = ('--workdir', workdir, '--sigma_rel', sigma_rel, '--step', step, '--to', tmp_path / to)
        refused = command(*args)
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert words in line
    assert {path.name for path in tmp_path.iterdir()} == {'mine', 'file'}
    assert 'give both' in command('--workdir', workdir, '--sigma_rel', 0.1).stderr
