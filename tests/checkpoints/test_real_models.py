"""Weights that were trained by others, converted: they do to a photograph what their own code does."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from ldm_jax.cache import CACHE
from ldm_jax.checkpoints import loading, store
from ldm_jax.checkpoints.convert import convert
from tests import oracles
from tests.shared_data import shared

ROOT = pathlib.Path(__file__).resolve().parents[2]
HALVES = ('encoder', 'decoder')


@pytest.fixture
def pair():
    """The published files of the tiny autoencoder for FLUX.2's latents."""
    return [shared(f'weights/taef2_{half}.pth') for half in HALVES]


@functools.cache
def photograph():
    """Pixels [1, H, W, 3] in [0, 1] of a crop, its latents [1, h, w, 32] and their image, by the code of others."""
    kept = np.load(shared('reference/taef2_kodak23_crop128.npz'))
    pixels = kept['image_uint8'][None] / np.float32(255)
    return pixels, *(kept[name].transpose(0, 2, 3, 1) for name in ('latent', 'decoded'))


def assert_works(model):
    """Latents and image are the reference's, and the image looks like the photograph."""
    pixels, latents, decoded = photograph()
    autoencoder, params = model.parts['first_stage'], {'params': model.params['first_stage']}
    image, z = map(np.asarray, jax.jit(autoencoder.apply)(params, 2 * pixels - 1))
    assert oracles.relative_error(z, latents) < 1e-5
    assert oracles.relative_error((image + 1) / 2, decoded) < 1e-5
    psnr = -10 * np.log10(np.mean((((image + 1) / 2).clip(0, 1) - pixels) ** 2))
    assert psnr == pytest.approx(27.6, abs=0.05)  # as the data's README says


@pytest.mark.slow
@pytest.mark.parametrize('half', HALVES)
def test_a_real_tiny_autoencoder_loads_by_either_of_its_files(pair, half, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / 'cache'))
    assert_works(loading.load(str(pair[HALVES.index(half)])))


@pytest.mark.slow
def test_a_real_tiny_autoencoder_goes_through_the_command_line_and_back(pair, tmp_path):
    def run(*args):
        command = [sys.executable, str(ROOT / 'tools' / 'convert.py'), *map(str, args)]
        env = os.environ | {'PYTHONPATH': str(ROOT)}
        found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
        assert found.returncode == 0, found.stderr
        return found.stdout

    assert '2,677,027 parameters in 158 arrays (158 float16)' in run(pair[0], 'taef2')
    assert_works(loading.load(str(tmp_path / 'taef2')))
    run('taef2', 'taef2.safetensors', '--to', 'compvis')
    run('taef2.safetensors', 'back')
    assert (tmp_path / 'back' / store.CHECKSUMS).read_text() == (
        tmp_path / 'taef2' / store.CHECKSUMS
    ).read_text()


def test_a_real_half_alone_names_the_other(pair, tmp_path):
    shutil.copy(pair[1], tmp_path)
    with pytest.raises(ValueError, match=r'decoder of a tiny .*no taef2_encoder\.pth beside it'):
        convert(tmp_path / pair[1].name, tmp_path / 'model')
    assert [path.name for path in tmp_path.iterdir()] == [pair[1].name]
