"""The scripts of experiments/own_model."""

import json
import shutil

import jax
import numpy as np
import pytest

from experiments.own_model import linear_bound, reconstruction, resume_file
from ldm_jax import images, trees
from ldm_jax.models import vae
from ldm_jax.training.saving.checkpoints import Checkpoints
from tests.training import runs


@pytest.mark.slow
def test_a_run_goes_on_from_its_file_as_if_it_had_never_moved(tmp_path):
    runs.run(tmp_path / 'whole', num_steps=20)
    runs.run(tmp_path / 'first', num_steps=10)
    file = tmp_path / 'run.tar'
    assert resume_file.pack(tmp_path / 'first', file) == 10
    assert resume_file.unpack(file, tmp_path / 'second') == 10
    whole, second = (runs.run(tmp_path / name, num_steps=20) for name in ('whole', 'second'))
    runs.assert_same(second, whole)
    with pytest.raises(ValueError, match='is at step 20, and .* at 10'):
        resume_file.unpack(file, tmp_path / 'second')


def test_a_file_that_is_too_large_or_empty_is_not_written(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='no checkpoint yet'):
        resume_file.pack(tmp_path, tmp_path / 'x.tar')
    runs.run(tmp_path / 'run', num_steps=5)
    monkeypatch.setattr(resume_file, 'LIMIT', 1000)
    with pytest.raises(ValueError, match='the file may take 40'):
        resume_file.pack(tmp_path / 'run', tmp_path / 'x.tar')
    assert list(tmp_path.glob('*.tar*')) == []


def test_all_components_rebuild_an_image_and_few_only_its_means():
    images = np.random.default_rng(0).uniform(0.2, 0.8, (40, 64, 64, 3)).astype(np.float32)
    cut = linear_bound.patches(images, 4)
    assert cut.shape == (40, 256, 48)
    np.testing.assert_array_equal(cut[3, 17], images[3, 4:8, 4:8].reshape(-1))
    mean, axes = linear_bound.components(cut)
    assert linear_bound.psnr(cut, mean, axes) > 90
    assert (
        abs(linear_bound.psnr(cut, mean, axes[:, :1]) - 10 * np.log10(12 / 0.36)) < 0.3
    )  # of a uniform variable


def test_psnr_and_its_interval():
    real = np.full((4, 64, 64, 3), 100, np.uint8)
    made = real + np.array([1, 1, 10, 10], np.uint8)[:, None, None, None]
    found = reconstruction.psnr(real, made)
    np.testing.assert_allclose(found, 20 * np.log10(255 / np.array([1, 1, 10, 10])))
    mean, half = reconstruction.interval(found)
    assert mean == found.mean()
    np.testing.assert_allclose(half, 1.96 * (20 / np.sqrt(3)) / 2)  # the values are 10 off their mean


@pytest.mark.slow
def test_a_first_stage_is_rebuilt_from_its_newest_checkpoint(tmp_path, monkeypatch):
    network = vae.Model(z_channels=2, channels=8, channel_mult=(1,), num_res_blocks=1, num_groups=4)
    params = trees.init(network, jax.random.key(0), size=8)
    with Checkpoints(tmp_path / 'checkpoints') as checkpoints:
        for step, scale in ((3, 0.0), (7, 1.0)):
            scaled = jax.tree.map(lambda leaf, scale=scale: scale * leaf, params)
            checkpoints.save(step, {'ema': {'main': {'first_stage': scaled}}})
    spec = dict(name='vae', z_channels=2, channels=8, channel_mult=(1,), num_res_blocks=1, num_groups=4)
    (tmp_path / 'config.json').write_text(json.dumps({'models': {'first_stage': spec}}))
    monkeypatch.setattr(reconstruction, 'BATCH', 2)
    step, rebuild = reconstruction.first_stage(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    assert step == 7
    expected = images.to_uint8(network.apply({'params': params}, images.to_float(pixels))[0])
    assert np.abs(rebuild(pixels).astype(int) - expected).max() <= 1
    shutil.rmtree(tmp_path / 'checkpoints')
    with pytest.raises(ValueError, match='no checkpoint yet'):
        reconstruction.first_stage(tmp_path)
