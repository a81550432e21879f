"""Model directories: whole or absent, each part alone, float32 whatever is on disk."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.checkpoints import store

PARAMS = {
    'unet': {'conv_in': {'kernel': np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)}},
    'first_stage': {'scale': np.float32(3) * np.ones(5, np.float32)},
}
SETTINGS = {'unet': {'name': 'unet', 'channel_mult': [1, 2]}, 'latent_scale': 0.5}


def test_a_model_comes_back_as_it_was(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    settings, params = store.load_model(tmp_path / 'model')
    assert settings == SETTINGS
    assert params.keys() == PARAMS.keys()
    np.testing.assert_array_equal(params['unet']['conv_in']['kernel'], PARAMS['unet']['conv_in']['kernel'])


def test_no_file_of_a_model_tells_where_it_was_written(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    files = [path.read_bytes() for path in (tmp_path / 'model').rglob('*') if path.is_file()]
    assert not any(str(tmp_path).encode() in content for content in files)


def test_device_arrays_are_stored_too(tmp_path):
    store.save_model(tmp_path / 'model', {}, {'part': {'x': jnp.arange(3.0)}})
    np.testing.assert_array_equal(store.load_model(tmp_path / 'model')[1]['part']['x'], [0, 1, 2])


def test_float16_on_disk_is_float32_in_memory(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS, dtype='float16')
    kernel = store.load_model(tmp_path / 'model')[1]['unet']['conv_in']['kernel']
    assert kernel.dtype == np.float32
    expected = PARAMS['unet']['conv_in']['kernel'].astype(np.float16)
    np.testing.assert_array_equal(kernel, expected)


def test_one_part_can_be_read_alone(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    assert store.load_model(tmp_path / 'model', ['unet'])[1].keys() == {'unet'}
    with pytest.raises(ValueError, match=r"'vae'.*'first_stage'"):
        store.load_model(tmp_path / 'model', ['vae'])


def test_saving_again_replaces_the_model_and_leaves_nothing_else(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    store.save_model(tmp_path / 'model', {'a': 1}, {'unet': PARAMS['unet']})
    settings, params = store.load_model(tmp_path / 'model')
    assert settings == {'a': 1}
    assert params.keys() == {'unet'}
    assert [entry.name for entry in tmp_path.iterdir()] == ['model']


def test_a_save_that_dies_halfway_leaves_the_old_model(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    with pytest.raises(AttributeError):
        store.save_model(tmp_path / 'model', {'a': 1}, {'unet': PARAMS['unet'], 'vae': {'x': 'no array'}})
    assert store.load_model(tmp_path / 'model')[0] == SETTINGS


def test_a_save_killed_between_its_renames_loses_nothing(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    (tmp_path / 'model').rename(tmp_path / 'model.old')
    with pytest.raises(AttributeError):  # this save fails as well
        store.save_model(tmp_path / 'model', {'a': 1}, {'vae': {'x': 'no array'}})
    assert store.load_model(tmp_path / 'model')[0] == SETTINGS


def test_something_else_at_the_path_is_not_overwritten(tmp_path):
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'text.tex').write_text('years of work')
    with pytest.raises(FileExistsError, match='thesis'):
        store.save_model(tmp_path / 'thesis', SETTINGS, PARAMS)
    assert (tmp_path / 'thesis' / 'text.tex').read_text() == 'years of work'


def test_no_model_at_a_path_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'settings\.json'):
        store.load_model(tmp_path)
