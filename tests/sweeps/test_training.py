"""Cells that are training runs: the run's own numbers, resumed after a kill, the same on every engine."""

import numpy as np
import pytest

import configs
from ldm_jax import build, images
from ldm_jax.checkpoints import loading
from ldm_jax.sweeps import definition, run, statistics
from ldm_jax.sweeps.results import Results
from ldm_jax.training.monitoring import writers
from ldm_jax.training.preemption import Preempted, Preemption
from tests.sweeps.test_executors import FILE, numbers, tool

RUN = {'run.num_steps': 4, 'run.log_every': 2, 'run.save_every': 2, 'run.image_every': 0, 'run.batch_size': 8}


def config(**more):
    found = configs.plain(configs.load('configs/tiny.py:first_stage'))
    del found['models']['discriminator']
    evaluate = dict(every=2, metrics=['psnr', 'fd'], num_images=11, batch_size=8)
    found['run'] |= dict(evaluate=evaluate, keep_best='evaluate/psnr')
    return dict(
        cells=dict(
            name='training', config=found, metrics=['loss', 'evaluate/psnr'], measure=f'{__name__}.size'
        ),
        settings=RUN,
        vary={'optimizer.lr': [1e-3, 1e-2], 'seed': [0, 1]},
    ) | dict(more)


def size(model, settings):
    """A number and scores of an exported model."""
    loaded = loading.load(model)
    bias = np.asarray(loaded.params['first_stage']['decoder']['conv_out']['bias'])
    return {'seed_again': settings['seed'], 'bias': np.abs(bias)}


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(settings={'optimizer.lrr': 1}), "Did you mean 'lr'"),
        (dict(settings={'run.num_steps': 0}), 'at least 1'),
        (dict(cells=dict(name='training')), 'config'),
    ],
)
def test_wrong_settings_are_one_line_before_any_training(change, words):
    with pytest.raises(ValueError, match=words):
        definition.sweep(config(**change))


@pytest.mark.slow
def test_runs_are_cells_and_one_that_is_stopped_goes_on(tmp_path, monkeypatch):
    sweep = definition.sweep(config(vary={'optimizer.lr': [1e-2], 'seed': [0, 1]}))
    results = Results(tmp_path)
    check, stop = Preemption.check, iter([False, False, True])
    monkeypatch.setattr(
        Preemption, 'check', lambda self, step: _raise() if next(stop, False) else check(self, step)
    )
    with pytest.raises(Preempted):
        run.run(sweep, results)
    run.run(sweep, results)
    assert not results.failures(sweep.cells)
    rows = statistics.rows(sweep, results)
    assert len(rows) == 1
    for row in rows:
        losses = []
        for cell in row.cells:
            lines = writers.read_metrics(tmp_path / 'training' / cell.key)
            assert [line['step'] for line in lines] == [2, 4]
            losses.append(lines[-1]['loss'])
        np.testing.assert_allclose(row.numbers['loss'].value, np.mean(losses))
        assert row.numbers['seed_again'].value == 0.5
        assert row.numbers['bias'].count == 6
    # The best model is that of the step whose line says so: measured here by other code.
    for cell in sweep.cells:
        workdir = tmp_path / 'training' / cell.key
        logged = [line['evaluate/psnr'] for line in writers.read_metrics(workdir)]
        assert logged[0] != logged[1]
        np.testing.assert_allclose(psnr(str(workdir / 'best_model')), max(logged), rtol=1e-4)


def psnr(model):
    """Mean PSNR in dB of a first stage's reconstructions of the first 11 shapes."""
    loaded = loading.load(model, ['first_stage'])
    source = build.build('data', dict(name='synthetic', image_size=16))
    x = np.stack([images.to_float(np.asarray(source[i]['image'])) for i in range(11)])
    made, _ = loaded.parts['first_stage'].apply({'params': loaded.params['first_stage']}, x)
    error = (np.asarray(made) - x) ** 2
    return np.mean(10 * np.log10(4 / error.mean((1, 2, 3))))


def _raise():
    raise Preempted


@pytest.mark.slow
def test_ray_and_submitit_give_what_one_process_gives(tmp_path):
    small = config()
    del small['cells']['measure']
    (tmp_path / 'sweep.py').write_text(FILE.format(config=small))
    tool(tmp_path / 'sweep.py', tmp_path / 'here')
    wanted = numbers(tmp_path / 'here')
    assert len(wanted) == 4
    tool(tmp_path / 'sweep.py', tmp_path / 'ray', '--executor', 'ray', '--jobs', '2')
    local = ('--executor_option', 'cluster=local', '--executor_option', 'timeout_min=5')
    tool(tmp_path / 'sweep.py', tmp_path / 'slurm', '--executor', 'slurm', '--jobs', '2', *local)
    for name in ('ray', 'slurm'):
        assert numbers(tmp_path / name) == wanted, name
        assert len(list((tmp_path / name / 'training').iterdir())) == 4
