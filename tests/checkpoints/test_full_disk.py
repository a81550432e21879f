"""A disk that is full: one error that names the destination, and nothing left of what was written."""

import asyncio
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {'orbax': 'out', 'diffusers': 'out', 'compvis': 'out.safetensors'}
# Files may not grow beyond LIMIT bytes, which fails where a full disk does.
CODE = """
import resource, signal, sys
from ldm_jax.checkpoints.convert import convert
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
try:
    convert(sys.argv[1], sys.argv[2], to=sys.argv[3])
except OSError as error:
    sys.exit(f'error: {error}')
"""


SAVE = """
import resource, signal, sys
import jax.numpy as jnp
from ldm_jax.training.saving.checkpoints import Checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    with Checkpoints(sys.argv[1]) as checkpoints:
        checkpoints.save(1, {str(number): jnp.arange(50_000.0) for number in range(8)})
        checkpoints.wait()
except OSError as error:
    sys.exit(f'error: {error}')
"""


def process(code, *arguments):
    return subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    )


@pytest.mark.slow
@pytest.mark.parametrize('to', NAMES)
@pytest.mark.parametrize('limit', [100, 100_000, 2_000_000])
def test_it_is_named_in_one_line_and_leaves_nothing(tmp_path, to, limit):
    out = process(CODE, ROOT / 'ldm_jax' / 'weights' / 'emoji32', tmp_path / NAMES[to], to, limit)
    lines = [line for line in out.stderr.splitlines() if not line.startswith('converting:')]
    assert len(lines) == 1, out.stderr[:2000]
    assert lines[0].startswith('error: [Errno 27]')
    assert str(tmp_path / 'out') in lines[0]
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize('limit', [100, 100_000])
def test_so_it_is_in_training(tmp_path, limit):
    out = process(SAVE, tmp_path / 'checkpoints', limit)
    assert out.stderr.splitlines() == [f"error: [Errno 27] File too large: '{tmp_path / 'checkpoints'}'"]
    assert os.listdir(tmp_path / 'checkpoints') == []


def test_further_failures_of_a_write_are_not_printed_and_those_of_others_are(caplog):
    from ldm_jax.checkpoints import orbax_trees

    def fails(error):
        loop = asyncio.new_event_loop()
        loop.create_future().set_exception(error)  # which nobody fetches
        loop.close()
        gc.collect()
        return [record.getMessage().partition('\n')[0] for record in caplog.records]

    orbax_trees.quiet()
    where = '"out.ldm_jax-partial/unet.partial_save.orbax-checkpoint-tmp/state/d/a1b2"'
    assert fails(ValueError(f'Failed writing: {where}: Failed to write 11484032 bytes')) == []
    assert fails(ValueError('another')) == ['Future exception was never retrieved']


def test_nothing_of_an_older_model_is_lost(tmp_path):
    from ldm_jax import trees
    from ldm_jax.checkpoints import store
    from ldm_jax.checkpoints.lazy_arrays import Arrays
    from tests.checkpoints.test_bit_flips import SETTINGS, tiny_params

    params = tiny_params()
    store.save_model(tmp_path / 'model', SETTINGS, params)
    leaves = {
        f'{part}/{name}': leaf for part, tree in params.items() for name, leaf in trees.named(tree).items()
    }

    class Full(Arrays):
        def read(self, paths):
            raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match='No space left on device.*model'):
        store.write_model(tmp_path / 'model', SETTINGS, Full(leaves))
    assert os.listdir(tmp_path) == ['model']
    assert store.load_model(tmp_path / 'model')[0] == SETTINGS
