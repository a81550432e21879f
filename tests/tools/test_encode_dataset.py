"""A dataset encoded from the command line with the shipped model: killed, resumed, equal to encoding by hand."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from ldm_jax.checkpoints import loading
from ldm_jax.conditioning import encoder
from ldm_jax.data import latents, synthetic
from ldm_jax.images import to_float

ROOT = pathlib.Path(__file__).parent.parent.parent
# Twelve examples in six files, one after the other.
ARGS = ['--model', 'emoji32', '--config', f'{ROOT}/configs/tiny.py', '--config.data.image_size=32']
ARGS += ['--batch_size', '2', '--shard_size', '2', '--dtype', 'float32']


def command(*args):
    return [sys.executable, str(ROOT / 'tools' / 'encode_dataset.py'), *map(str, args)]


def environment():
    return os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}


def run(*args):
    return subprocess.run(command(*args), capture_output=True, text=True, env=environment())


@pytest.mark.slow
def test_a_killed_run_goes_on_and_equals_encoding_by_hand(tmp_path):
    out = tmp_path / 'encoded'
    process = subprocess.Popen(command(*ARGS, '--out', out), env=environment(), stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(out.glob('*.array_record')):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.read_bytes() for path in out.glob('*.array_record')}
    assert kept
    resumed = run(*ARGS, '--out', out)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert all(path.read_bytes() == data for path, data in kept.items())
    assert not list(out.glob('*-partial'))

    source, examples = latents.Source(str(out)), synthetic.Source(32)
    assert len(source) == len(examples) == 12
    loaded = loading.load('emoji32', ['first_stage', 'text_encoder'])
    model = encoder.from_settings(loaded.settings, ['first_stage', 'text_encoder'])
    images = to_float(np.stack([examples[i]['image'] for i in range(12)]))
    found = jax.jit(model)(loaded.params, images, model.tokens([examples[i]['text'] for i in range(12)]))
    assert source[0].keys() == {'moments', 'context', 'pooled', 'text'}
    for i in range(12):
        assert source[i]['text'] == examples[i]['text']
        for name in ('moments', 'context', 'pooled'):
            np.testing.assert_allclose(source[i][name], found[name][i], atol=2e-5)
    null = jax.jit(model)(loaded.params, None, model.tokens(['']))
    np.testing.assert_allclose(source.null['context'], null['context'][0], atol=2e-5)

    other = run(*ARGS, '--out', out, '--dtype', 'float16')
    assert other.returncode != 0
    assert "'dtype': ('float32', 'float16')" in other.stderr


@pytest.mark.slow
def test_processes_share_the_work_and_parts_are_chosen(tmp_path):
    for index in (0, 1):
        args = [*ARGS, '--out', tmp_path / 'x', '--parts', 'first_stage', '--process_count', 2]
        done = run(*args, '--process_index', index)
        assert done.returncode == 0, done.stderr[-2000:]
    source = latents.Source(str(tmp_path / 'x'))
    assert source[11].keys() == {'moments', 'text'}
    assert source.null == {}
