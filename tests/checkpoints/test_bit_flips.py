"""A flipped bit in any file of a model directory: `Damaged`, naming the file or the array, or no difference at all."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from ldm_jax.checkpoints import checksums, store
from tests.checkpoints import folders

SETTINGS = folders.TINY['StableDiffusionPipeline'] | dict(guidance_scale=3.0)
RNG = np.random.default_rng(0)


def tiny_params():
    """Parameters of which every file is small, so that a bit is as likely in a name as in a number."""
    part = {f'layer_{i}': {'kernel': RNG.standard_normal((4, 5), np.float32)} for i in range(3)}
    return {'unet': part, 'first_stage': {'scale': np.ones(5, np.float32)}, 'text_encoder': part}


def write(path):
    params = tiny_params()
    leaves = {'unet': params['unet'], 'first_stage': params['first_stage']}
    store.save_model(path, SETTINGS, leaves | {'text_encoder': params['text_encoder']})
    return params


def load(path):
    """Settings and parameters, or the text of Damaged; any other error fails the test."""
    try:
        return store.load_model(path)
    except (checksums.Damaged, FileNotFoundError) as error:
        return str(error)


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def assert_named_or_the_same(path, file, bits, whole):
    """Flips each of the bits of a file in turn; returns how many were noticed."""
    content, noticed = file.read_bytes(), 0
    for bit in bits:
        file.write_bytes(flipped(content, int(bit)))
        found = load(path)
        if isinstance(found, str):
            part = file.relative_to(path).parts[0]
            assert part in found or str(path) in found, (file, bit, found)
            noticed += 1
        else:
            assert found[0] == whole[0], (file, bit)
            jax.tree.map(np.testing.assert_array_equal, found[1], whole[1])
    file.write_bytes(content)
    return noticed


def files_of(path):
    return sorted(file for file in Path(path).rglob('*') if file.is_file())


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # Orbax drops reads that fail
@pytest.mark.parametrize(
    'count', [pytest.param(2, id='few'), pytest.param(40, marks=pytest.mark.slow, id='many')]
)
def test_bits_of_every_file(tmp_path, count):
    write(tmp_path / 'model')
    whole = load(tmp_path / 'model')
    files, noticed = files_of(tmp_path / 'model'), 0
    for file in files:
        size = 8 * file.stat().st_size
        bits = RNG.choice(size, min(count, size), replace=False) if size else []
        noticed += assert_named_or_the_same(tmp_path / 'model', file, bits, whole)
    assert len(files) > 12
    assert noticed > count * len(files) / 4


@pytest.mark.parametrize('name', [store.SETTINGS, store.CHECKSUMS])
@pytest.mark.parametrize('count', [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_bits_of_the_settings_and_of_the_checksums_are_all_noticed(tmp_path, name, count):
    write(tmp_path / 'model')
    file = tmp_path / 'model' / name
    content = file.read_bytes()
    for bit in RNG.choice(8 * len(content), count, replace=False):
        file.write_bytes(flipped(content, int(bit)))
        with pytest.raises(checksums.Damaged, match=name):
            store.open_model(tmp_path / 'model')


# Bits of the shipped model's settings that left no trace in shapes.
BITS = (5362, 6936, 5549, 7009)


@pytest.mark.parametrize('bit', [*BITS, *range(3, 7000, 701)])
def test_bits_of_the_shipped_model_s_settings(tmp_path, bit):
    shutil.copytree(store.find('emoji32'), tmp_path / 'model')
    file = tmp_path / 'model' / store.SETTINGS
    file.write_bytes(flipped(file.read_bytes(), bit % (8 * file.stat().st_size)))
    with pytest.raises(checksums.Damaged, match=r'settings\.json'):
        store.open_model(tmp_path / 'model')


@pytest.mark.parametrize('name', [store.SETTINGS, store.CHECKSUMS])
@pytest.mark.parametrize('content', [b'', b'{}', b'[]', b'null', b'\xff', b'{"a": 1}', b'{', b'[' * 100_000])
def test_files_that_hold_something_else(tmp_path, name, content):
    write(tmp_path / 'model')
    (tmp_path / 'model' / name).write_bytes(content)
    with pytest.raises(checksums.Damaged, match=name):
        store.open_model(tmp_path / 'model')


def older(path):
    """The directory as it was before its settings had a checksum."""
    file = path / store.CHECKSUMS
    arrays = {name: entry for name, entry in json.loads(file.read_text()).items() if '/' in name}
    file.write_text(json.dumps(arrays))


def test_older_directories_load_as_they_are(tmp_path):
    params = write(tmp_path / 'model')
    older(tmp_path / 'model')
    settings, found = store.load_model(tmp_path / 'model')
    assert settings == SETTINGS
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_an_unknown_setting_is_refused_in_older_directories_too(tmp_path):
    write(tmp_path / 'model')
    older(tmp_path / 'model')
    file = tmp_path / 'model' / store.SETTINGS
    file.write_text(file.read_text().replace('guidance_scale', 'guidance_scald'))
    with pytest.raises(checksums.Damaged, match=r"settings\.json.*'guidance_scald'.*'guidance_scale'"):
        store.open_model(tmp_path / 'model')
    with pytest.raises(ValueError, match=r"'guidance_scald'.*'guidance_scale'"):
        store.save_model(tmp_path / 'other', {'models': {}, 'guidance_scald': 1}, {'unet': {'a': np.ones(1)}})
    assert not (tmp_path / 'other').exists()


def test_settings_that_were_changed_on_purpose_are_sealed_anew(tmp_path):
    write(tmp_path / 'model')
    file = tmp_path / 'model' / store.SETTINGS
    file.write_text(file.read_text().replace('"guidance_scale": 3.0', '"guidance_scale": 4.0'))
    with pytest.raises(checksums.Damaged, match='seal'):
        store.open_model(tmp_path / 'model')
    store.seal(tmp_path / 'model')
    assert store.open_model(tmp_path / 'model').settings['guidance_scale'] == 4


def test_names_of_before_are_read(tmp_path):
    """latent_scale is scaling_factor now."""
    write(tmp_path / 'model')
    older(tmp_path / 'model')
    file = tmp_path / 'model' / store.SETTINGS
    file.write_text(file.read_text().replace('scaling_factor', 'latent_scale'))
    assert store.open_model(tmp_path / 'model').settings == SETTINGS
    store.seal(tmp_path / 'model')
    assert store.open_model(tmp_path / 'model').settings == SETTINGS
    both = json.loads(file.read_text()) | {'scaling_factor': 0.5}
    file.write_text(json.dumps(both))
    store.seal(tmp_path / 'model')
    with pytest.raises(checksums.Damaged, match=r"settings\.json.*'latent_scale'.*'scaling_factor'"):
        store.open_model(tmp_path / 'model')
