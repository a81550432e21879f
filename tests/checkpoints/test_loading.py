"""One function for every kind of model: shipped, trained, public, converted once and kept by content."""

import json
import os
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ldm_jax import trees
from ldm_jax.cache import CACHE
from ldm_jax.checkpoints import checksums, loading, store
from ldm_jax.checkpoints.checksums import Damaged
from ldm_jax.checkpoints.choice import Choice
from ldm_jax.checkpoints.convert import convert
from ldm_jax.checkpoints.lazy_arrays import Arrays
from tests.checkpoints import folders

SETTINGS = folders.TINY['StableDiffusionPipeline']


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """The same model as a directory of ours, a diffusers folder and a single file."""
    root = tmp_path_factory.mktemp('checkpoints')
    params = folders.random_params(SETTINGS)
    leaves = {f'{part}/{p}': leaf for part, tree in params.items() for p, leaf in trees.named(tree).items()}
    store.write_model(root / 'model', SETTINGS, Arrays(leaves))
    convert(root / 'model', root / 'folder', to='diffusers')
    convert(root / 'model', root / 'file.safetensors', to='compvis')
    return root, params


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['model', 'folder', 'file.safetensors'])
def test_every_kind_gives_the_same_parts_and_parameters(checkpoints, kind):
    root, params = checkpoints
    loaded = loading.load(str(root / kind))
    assert loaded.parts.keys() == loaded.params.keys() == {'unet', 'first_stage', 'text_encoder'}
    assert loaded.settings['parameterization'] == 'eps'
    for part in params:
        jax.tree.map(np.testing.assert_array_equal, loaded.params[part], params[part])
        assert (
            trees.named(trees.shapes(loaded.parts[part], size=8)).keys() == trees.named(params[part]).keys()
        )


def test_a_shipped_model_loads_by_its_name_and_parts_alone(cache):
    loaded = loading.load('emoji32', ['vae'])
    assert loaded.params.keys() == loaded.parts.keys() == {'first_stage'}
    assert not cache.exists()
    with pytest.raises(ValueError, match="'text_encoder_2'.*'text_encoder'"):
        loading.load('emoji32', ['text_encoder_2'])


@pytest.mark.slow
def test_a_conversion_is_kept_by_content_wherever_the_file_lies(checkpoints, tmp_path, cache, monkeypatch):
    root, _ = checkpoints
    first = loading.resolve(str(root / 'file.safetensors'))
    shutil.copy(root / 'file.safetensors', tmp_path / 'another name.safetensors')
    monkeypatch.setattr(loading, 'convert', None)  # it is not called again
    assert loading.resolve(str(tmp_path / 'another name.safetensors')) == first
    assert loading.resolve(str(root / 'file.safetensors')) == first
    assert [entry.name for entry in (cache / 'converted').iterdir() if entry.is_dir()] == [
        os.path.basename(first)
    ]


@pytest.mark.slow
def test_other_content_or_choices_are_converted_anew(checkpoints, tmp_path):
    root, _ = checkpoints
    file = tmp_path / 'file.safetensors'
    shutil.copy(root / 'file.safetensors', file)
    first = loading.resolve(str(file))
    assert loading.resolve(str(file), Choice(prediction='v')) != first
    assert loading.load(str(file), choice=Choice(prediction='v')).settings['parameterization'] == 'v'
    with pytest.raises(ValueError, match='no key that fits'):  # looked for, not found among what was kept
        loading.resolve(str(file), Choice(ignore=('nothing',)))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    time.sleep(0.01)  # a time stamp later
    file.write_bytes(content)
    assert loading.resolve(str(file)) != first


@pytest.mark.slow
def test_a_sidecar_is_part_of_the_content(checkpoints, tmp_path):
    root, _ = checkpoints
    shutil.copy(root / 'file.safetensors', tmp_path / 'file.safetensors')
    first = loading.resolve(str(tmp_path / 'file.safetensors'))
    (tmp_path / 'file.yaml').write_text('model:\n  params:\n    parameterization: v\n')
    second = loading.resolve(str(tmp_path / 'file.safetensors'))
    assert first != second
    settings = [store.open_model(path).settings['parameterization'] for path in (first, second)]
    assert settings == ['eps', 'v']


def test_what_is_not_there_says_what_may_be_given(tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing at .*diffusers folder.*emoji32.*owner/name'):
        loading.load(str(tmp_path / 'nowhere.ckpt'))
    (tmp_path / 'notes').mkdir()
    with pytest.raises(ValueError, match='notes'):
        loading.load(str(tmp_path / 'notes'))


@pytest.mark.slow
def test_a_damaged_cache_is_named(checkpoints, cache):
    root, _ = checkpoints
    path = loading.resolve(str(root / 'file.safetensors'))
    file = Path(path) / store.CHECKSUMS
    record = checksums.unsealed(json.loads(file.read_text()), file)
    record['unet/conv_in/bias']['crc32'] = '0' * 8
    file.write_text(json.dumps(checksums.sealed(record)))
    with pytest.raises(Damaged, match='unet/conv_in/bias.*the conversion of .*file.*delete it'):
        loading.load(str(root / 'file.safetensors'))
    loading.load(str(root / 'file.safetensors'), verify=False)
