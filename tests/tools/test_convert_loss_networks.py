"""The losses' networks from the command line."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ldm_jax.checkpoints import store
from tests.checkpoints.test_loss_networks import write

ROOT = pathlib.Path(__file__).parent.parent.parent


def tool(*args, cwd):
    command = [sys.executable, str(ROOT / 'tools' / 'convert_loss_networks.py'), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.slow
def test_a_discriminator_becomes_a_model_directory(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {
        '0.weight': (4, 3, 4, 4), '0.bias': (4,),
        '2.weight': (8, 4, 4, 4), '3.weight': (8,), '3.bias': (8,), '3.running_var': (8,),
        '5.weight': (1, 8, 4, 4), '5.bias': (1,),
    }  # fmt: skip
    tensors = {
        f'loss.discriminator.main.{key}': rng.standard_normal(s, np.float32) for key, s in shapes.items()
    }
    source = write(tmp_path / 'model.safetensors', tensors)
    done = tool(source, tmp_path / 'losses', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'num_layers': 1" in done.stdout
    assert '853 parameters' in done.stdout
    _, params = store.load_model(tmp_path / 'losses')
    kernel = tensors['loss.discriminator.main.2.weight'].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params['discriminator']['conv_1']['kernel'], kernel)


def test_another_file_is_an_error_in_a_line(tmp_path):
    source = write(tmp_path / 'other.safetensors', {'weight': np.zeros(3, np.float32)})
    done = tool(source, tmp_path / 'losses', cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')
    assert 'no perceptual network' in done.stderr
    assert not (tmp_path / 'losses').exists()
