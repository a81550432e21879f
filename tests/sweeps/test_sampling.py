"""Cells of samplers: paired, computed once, each program compiled once."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ldm_jax import Guidance, Sampling, images, open, text_to_image
from ldm_jax.sweeps import definition, outputs, run, statistics
from ldm_jax.sweeps.kinds import sampling
from ldm_jax.sweeps.results import Results
from tests import tiny_models

ROOT = pathlib.Path(__file__).parents[2]
PROMPTS = ('a red circle', 'a blue cross')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return tiny_models.save(tmp_path_factory.mktemp('models'), 'text')


def config(model, **more):
    return dict(
        cells=dict(
            name='sampling',
            prompts=PROMPTS,
            num_images=2,
            metrics=dict(error={}),
            exact=dict(sampler='euler', grid='karras', num_steps=40),
            shown=1,
        ),
        settings=dict(model=model),
        vary=dict(
            sampler=['euler'], grid=['karras'], num_steps=[2, 5, 40], guidance_scale=[1.5, 3.0], seed=[0, 1]
        ),
    ) | dict(more)


def test_cells_are_what_the_pipeline_makes_and_compile_once(model, tmp_path, monkeypatch):
    sweep, results = definition.sweep(config(model)), Results(tmp_path)
    calls = []
    compute = sampling.Kind.compute
    monkeypatch.setattr(
        sampling.Kind, 'compute', lambda self, cells, r: calls.append(len(cells)) or compute(self, cells, r)
    )
    run.run(sweep, results)
    assert not results.failures(sweep.cells)
    assert calls == [4, 4, 4]
    pipeline = sampling._opened(model, None, 2)
    assert (
        pipeline.programs._advance._cache_size() == 1
    )  # 3 numbers of steps, 2 scales, 2 seeds, and the exact ones
    cell = next(
        c for c in sweep.cells if c.settings == sweep.cells[0].settings | dict(guidance_scale=3.0, seed=1)
    )
    wanted = text_to_image(
        open(model, batch_size=2), PROMPTS, seed=2,
        sampling=Sampling('euler', grid='karras', num_steps=2, guidance=Guidance(scale=3.0)),
    )  # fmt: skip
    made = results.read(cell.key).arrays['images']
    assert np.abs(made[0].astype(int) - images.to_uint8(wanted[0])).max() <= 1
    errors = {
        row.settings['num_steps']: row.numbers['error'].value
        for row in statistics.rows(sweep, results)
        if row.settings['guidance_scale'] == 1.5
    }
    assert errors[2] > errors[5] > 0
    assert errors[40] < 1e-6
    run.run(sweep, results)
    assert len(calls) == 3  # nothing is computed twice
    more = definition.sweep(config(model, vary=dict(config(model)['vary'], num_steps=[2, 3])))
    run.run(more, results)
    assert calls[3:] == [4]  # of what is new


@pytest.mark.slow
def test_a_cell_that_fails_is_named_and_the_rest_go_on(model, tmp_path, monkeypatch):
    sweep, results = definition.sweep(config(model)), Results(tmp_path)
    monkeypatch.setattr(sampling, 'relative', lambda x, exact: np.full(len(x), np.nan))
    sample = sampling.Kind._sample

    def failing(self, pipeline, settings):
        if any(each['num_steps'] == 5 and each.get('seed') == 1 for each in settings):
            raise RuntimeError('the device is gone')
        return sample(self, pipeline, settings)

    run.run(sweep, results)
    assert set(results.failures(sweep.cells).values()) == {'ValueError: scores/error is not finite'}
    monkeypatch.undo()
    monkeypatch.setattr(sampling.Kind, '_sample', failing)
    run.run(sweep, results)
    failed = [cell for cell in sweep.cells if cell.key in results.failures(sweep.cells)]
    assert {(c.settings['num_steps'], c.settings['seed']) for c in failed} == {(5, 1)}
    assert len(failed) == 2
    rows = outputs.write(sweep, results, 'python tools/sweep.py x.py')
    assert len(rows) == 6
    assert 'the device is gone' in (tmp_path / outputs.REPORT).read_text()
    monkeypatch.undo()
    run.run(sweep, results)
    assert not results.failures(sweep.cells)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(settings=dict()), 'needs a model'),
        (dict(settings=dict(model='emoji32', smapler='euler')), "Did you mean 'sampler'"),
        (dict(vary=dict(sampler=['oiler'])), "nearest are .'Euler'"),
        (dict(vary=dict(evaluations=[3], num_steps=[3])), 'leave num_steps out'),
        (dict(cells=dict(name='sampling', metrics=dict(error={}))), 'give cells.exact'),
        (dict(cells=dict(name='sampling', metrics=dict(fd={}))), 'give cells.reference'),
        (dict(cells=dict(name='sampling', metrics=dict(fdd={}))), "Did you mean 'fd'"),
        (dict(cells=dict(name='sampling', features='latent')), "Did you mean 'latents'"),
        (dict(cells=dict(name='sampling', num_images=0)), 'at least 1'),
    ],
)
def test_wrong_settings_are_one_line_before_anything_is_computed(change, words):
    with pytest.raises(ValueError, match=words):
        definition.sweep(config('emoji32', **change))


FILE = """
import pathlib
from ldm_jax.sweeps.kinds import sampling

LOG = pathlib.Path({log!r})
compute = sampling.Kind.compute


def logged(self, cells, results):
    for cell, result in zip(cells, compute(self, cells, results), strict=True):
        yield result  # written before the next line
        LOG.open('a').write(cell.key + chr(10))


sampling.Kind.compute = logged


def get_config(arg=''):
    from ml_collections import ConfigDict

    return ConfigDict({config!r})
"""


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_computes_no_cell_twice(model, tmp_path):
    log, out = tmp_path / 'log', tmp_path / 'out'
    vary = dict(
        sampler=['euler', 'ddim'], grid=['karras', 'trailing'], num_steps=list(range(2, 22)), seed=[0, 1]
    )
    (tmp_path / 'sweep.py').write_text(FILE.format(log=str(log), config=config(model, vary=vary)))
    command = [
        sys.executable,
        str(ROOT / 'tools' / 'sweep.py'),
        str(tmp_path / 'sweep.py'),
        '--out',
        str(out),
    ]
    env = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': ''}
    started = subprocess.Popen(
        command, env=env, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while started.poll() is None and len(list(out.glob('cells/*.json'))) < 20:
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    done = {path.stem for path in out.glob('cells/*.json')}
    assert 20 <= len(done) < 160
    before = set(log.read_text().split())
    found = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    after = log.read_text().split()[len(log.read_text().split()) - (160 - len(done)) :]
    assert not set(after) & done
    assert len(set(after)) == len(after)
    assert len(before | set(after) | done) >= 160
    for name in (outputs.REPORT, outputs.CSV, outputs.MARKDOWN, 'error_evaluations.png', 'images_0.png'):
        assert (out / name).stat().st_size > 500
