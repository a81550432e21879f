"""A diffusers folder without a tokenizer is converted, sampled with a prompt, and written back."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm_jax.checkpoints import loading, store
from ldm_jax.checkpoints.convert import convert
from tests import tiny_models


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['text', 'sizes'])
def test_there_and_back_with_images_between(tmp_path, sample, kind):
    model = tiny_models.save(tmp_path, kind)
    convert(model, str(tmp_path / 'folder'), to='diffusers')
    names = [path.name for path in (tmp_path / 'folder').glob('tokenizer*')]
    for name in names:
        shutil.rmtree(tmp_path / 'folder' / name)
    convert(str(tmp_path / 'folder'), str(tmp_path / 'again'))
    options = dict(num_steps=3, sampler='ddim', num_images=1, seed=3, scale=1, prompt='a red apple')
    made = {}
    for place in ('again', 'older'):
        if place == 'older':  # as such directories were before: without a tokenizer
            write_without_tokenizer(tmp_path / 'again', tmp_path / 'older')
        report = sample(model=str(tmp_path / place), out=tmp_path / f'{place} images', **options)
        with Image.open(report['images'][0]['path']) as image:
            made[place] = np.asarray(image)
    np.testing.assert_array_equal(made['again'], made['older'])
    convert(str(tmp_path / 'older'), str(tmp_path / 'back'), to='diffusers')
    for name in names:
        assert (tmp_path / 'back' / name / 'vocab.json').is_file()
    assert loading.load(str(tmp_path / 'older')).settings == store.open_model(tmp_path / 'again').settings


def write_without_tokenizer(source, destination):
    settings, params = store.load_model(source)
    kept = {key: value for key, value in settings.items() if not key.startswith('tokenizer')}
    store.save_model(Path(destination), kept, params)
