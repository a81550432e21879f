"""A disk that is full: one error that names the destination, and nothing left of what was written."""

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


def convert_with(limit, source, destination, to):
    return subprocess.run(
        [sys.executable, '-c', CODE, str(source), str(destination), to, str(limit)],
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    )


@pytest.mark.slow
@pytest.mark.parametrize('to', NAMES)
@pytest.mark.parametrize('limit', [100, 100_000, 2_000_000])
def test_it_is_named_in_one_line_and_leaves_nothing(tmp_path, to, limit):
    out = convert_with(limit, ROOT / 'ldm_jax' / 'weights' / 'emoji32', tmp_path / NAMES[to], to)
    lines = [line for line in out.stderr.splitlines() if not line.startswith('converting:')]
    assert len(lines) == 1, out.stderr[:2000]
    assert lines[0].startswith('error: [Errno 27]')
    assert str(tmp_path / 'out') in lines[0]
    assert os.listdir(tmp_path) == []


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
