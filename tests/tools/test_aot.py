"""tools/aot.py from the command line."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.aot.test_programs import TINY

ROOT = pathlib.Path(__file__).parent.parent.parent
# The tool where libtpu is not installed.
WITHOUT = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == 'libtpu' else find(name, *rest)
sys.argv = ['aot.py', *sys.argv[1:]]
runpy.run_path('tools/aot.py', run_name='__main__')
"""


def run(*args, code=None):
    command = [sys.executable, *(['-c', code] if code else ['tools/aot.py']), *args]
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    env = os.environ | {'PYTHONPATH': os.pathsep.join(paths), 'XLA_FLAGS': ''}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text(
        f'from ml_collections import ConfigDict\n\n\ndef get_config(arg=""):\n    return ConfigDict({TINY!r})\n'
    )
    return str(path)


def test_without_libtpu_the_way_to_get_it_is_said(config):
    found = run('--config', config, '--topology', 'v5e-4', code=WITHOUT)
    assert found.returncode == 1
    assert "pip install 'ldm_jax[tpu]'" in found.stderr
    assert 'Traceback' not in found.stderr


def test_an_unknown_slice_is_refused_before_anything_else(config):
    found = run('--config', config, '--topology', 'v5x-4', code=WITHOUT)
    assert found.returncode == 2
    assert "No TPU generation 'v5x'" in found.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec('libtpu') is None, reason='libtpu, of the extra tpu, is not installed'
)
def test_a_step_is_compiled_for_a_slice(config):
    cut = ['--config.run.parallel.data=1', '--config.run.parallel.fsdp=4']
    found = run('--config', config, '--topology', 'v5e-4', '--batch', '2', '--json', *cut)
    assert found.returncode == 0, found.stderr[-3000:]
    data = json.loads(found.stdout)
    assert (data['batch_size'], data['mesh']) == (8, {'data': 1, 'fsdp': 4, 'tensor': 1})
    assert data['gathered_activations'] == []
    assert {(row['kind'], tuple(row['axes'])) for row in data['collectives']} >= {('all-gather', ('fsdp',))}
    assert 0 < data['memory']['arguments'] < data['memory']['peak'] < data['chip']['hbm']
    assert 0 < data['utilisation']['serial'] <= data['utilisation']['overlapped'] < 1
