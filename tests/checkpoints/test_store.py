"""Model directories: whole or absent, each part alone, in any dtype, on any devices, and never silently damaged."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import atomic, trees
from ldm_jax.checkpoints import checksums, lazy_arrays, store
from ldm_jax.checkpoints.checksums import Damaged
from ldm_jax.checkpoints.lazy_arrays import Arrays

RNG = np.random.default_rng(0)
PARAMS = {
    'unet': {'conv_in': {'kernel': np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)}},
    'first_stage': {'scale': np.float32(3) * np.ones(5, np.float32)},
}
SETTINGS = {'models': {'unet': {'name': 'unet', 'channel_mult': [1, 2]}}, 'scaling_factor': 0.5}


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
    store.save_model(tmp_path / 'model', {'image_size': 1}, {'unet': PARAMS['unet']})
    settings, params = store.load_model(tmp_path / 'model')
    assert settings == {'image_size': 1}
    assert params.keys() == {'unet'}
    assert [entry.name for entry in tmp_path.iterdir()] == ['model']


def test_a_save_that_dies_halfway_leaves_the_old_model(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    with pytest.raises(AttributeError):
        store.save_model(
            tmp_path / 'model', {'image_size': 1}, {'unet': PARAMS['unet'], 'vae': {'x': 'no array'}}
        )
    assert store.load_model(tmp_path / 'model')[0] == SETTINGS


def test_a_save_killed_between_its_renames_loses_nothing(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    (tmp_path / 'model').rename(tmp_path / f'model{atomic.OLD}')
    with pytest.raises(AttributeError):  # this save fails as well
        store.save_model(tmp_path / 'model', {'image_size': 1}, {'vae': {'x': 'no array'}})
    assert store.load_model(tmp_path / 'model')[0] == SETTINGS


def test_copies_that_people_keep_beside_a_model_stay(tmp_path):
    for name in ('model.old', 'model.partial', 'model.bak'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'weights').write_text(name)
    for _ in range(2):
        store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    for name in ('model.old', 'model.partial', 'model.bak'):
        assert (tmp_path / name / 'weights').read_text() == name


@pytest.mark.parametrize('name', [store.SETTINGS, store.CHECKSUMS])
def test_a_folder_with_one_of_a_model_s_names_is_not_taken_for_one(tmp_path, name):
    (tmp_path / 'project').mkdir()
    (tmp_path / 'project' / name).write_text('{}')
    with pytest.raises(FileExistsError, match='project.*has no (settings|checksums)'):
        store.save_model(tmp_path / 'project', SETTINGS, PARAMS)
    assert (tmp_path / 'project' / name).read_text() == '{}'


def test_something_else_at_the_path_is_not_overwritten(tmp_path):
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'text.tex').write_text('years of work')
    with pytest.raises(FileExistsError, match='thesis'):
        store.save_model(tmp_path / 'thesis', SETTINGS, PARAMS)
    assert (tmp_path / 'thesis' / 'text.tex').read_text() == 'years of work'


def test_no_model_at_a_path_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'settings\.json'):
        store.load_model(tmp_path)


def load_or_error(path):
    try:
        return store.load_model(path)[1]
    except Damaged as error:
        return str(error)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # Orbax drops reads that fail
def test_a_flipped_bit_is_never_loaded_silently(tmp_path):
    """Anywhere in the model's files: either the load fails, or the arrays are what was written."""
    params = {'unet': {f'layer_{i}': {'kernel': RNG.standard_normal((64, 65), np.float32)} for i in range(6)}}
    arrays = {f'unet/{name}': leaf for name, leaf in trees.named(params['unet']).items()}
    store.write_model(tmp_path / 'model', {}, Arrays(arrays))
    files = sorted(path for path in (tmp_path / 'model' / 'unet').rglob('*') if path.is_file())
    sizes = np.array([path.stat().st_size for path in files])
    errors = []
    for file in RNG.choice(len(files), 40, p=sizes / sizes.sum()):
        original = files[file].read_bytes()
        flipped = bytearray(original)
        flipped[RNG.integers(len(flipped))] ^= 1 << RNG.integers(8)
        files[file].write_bytes(flipped)
        found = load_or_error(tmp_path / 'model')
        files[file].write_bytes(original)
        if isinstance(found, str):
            errors.append(found)
        else:
            jax.tree.map(np.testing.assert_array_equal, found, params)
    named = [text for text in errors if 'kernel of' in text and 'checksum' in text]
    assert len(named) > 20  # nearly all bytes are numbers, which nothing but the checksums protects


def test_a_damaged_array_is_named_and_loads_only_when_told_so(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    file = tmp_path / 'model' / store.CHECKSUMS
    record = checksums.unsealed(json.loads(file.read_text()), file)
    record['unet/conv_in/kernel']['crc32'] = '00000000'
    file.write_text(json.dumps(checksums.sealed(record)))
    with pytest.raises(Damaged, match=r'unet/conv_in/kernel .*00000000.*verify=False'):
        store.load_model(tmp_path / 'model')
    store.load_model(tmp_path / 'model', ['first_stage'])  # whose arrays are whole
    kernel = store.load_model(tmp_path / 'model', verify=False)[1]['unet']['conv_in']['kernel']
    np.testing.assert_array_equal(kernel, PARAMS['unet']['conv_in']['kernel'])


def test_a_model_without_its_checksums_is_not_whole(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    (tmp_path / 'model' / store.CHECKSUMS).unlink()
    with pytest.raises(FileNotFoundError, match=r'checksums\.json'):
        store.load_model(tmp_path / 'model')


def test_reading_one_part_touches_no_file_of_another(tmp_path):
    store.save_model(tmp_path / 'model', SETTINGS, PARAMS)
    shutil.rmtree(tmp_path / 'model' / 'first_stage')
    store.load_model(tmp_path / 'model', ['unet'])
    with pytest.raises(Damaged, match='first_stage'):
        store.load_model(tmp_path / 'model')


@pytest.mark.parametrize('verify', [True, False])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', None])
def test_arrays_go_to_the_devices_and_dtype_that_are_asked_for(tmp_path, verify, dtype):
    table = RNG.standard_normal((16, 8), np.float32)
    arrays = {'unet/table': table, 'unet/half': table[0].astype(np.float16), 'unet/ids': np.arange(16)}
    store.write_model(tmp_path / 'model', {}, Arrays(arrays))
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))

    def place(name, target):
        axes = ('data',) if target.shape[0] == 16 else ()
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    unet = store.load_model(tmp_path / 'model', dtype=dtype, shardings=place, verify=verify)[1]['unet']
    assert unet['table'].sharding == place('unet/table', table)
    assert unet['table'].addressable_shards[3].data.shape == (2, 8)
    assert [str(unet[name].dtype) for name in ('table', 'half')] == [dtype or 'float32', dtype or 'float16']
    assert np.issubdtype(unet['ids'].dtype, np.integer)
    expected = table.astype(unet['table'].dtype)
    np.testing.assert_array_equal(np.asarray(unet['table']), expected)
    np.testing.assert_array_equal(np.asarray(unet['ids']), np.arange(16))


@pytest.mark.parametrize('kind', ['float8_e4m3fn', 'float8_e5m2', 'bfloat16'])
def test_small_floats_are_floats(tmp_path, kind):
    table = np.linspace(-2, 2, 12).astype(kind).reshape(3, 4)
    store.write_model(tmp_path / 'model', {}, Arrays({'unet/table': table}))
    wide = store.load_model(tmp_path / 'model')[1]['unet']['table']
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, table.astype(np.float32))
    np.testing.assert_array_equal(store.load_model(tmp_path / 'model', dtype=None)[1]['unet']['table'], table)
    assert lazy_arrays.all_finite(table)
    assert not lazy_arrays.all_finite(np.array([1, np.nan]).astype(kind))


def test_leaves_are_read_in_windows_of_bounded_size(tmp_path, monkeypatch):
    arrays = {f'unet/a{i}': np.full(100, i, np.float32) for i in range(10)}
    asked = []

    class Recorded(Arrays):
        def read(self, paths):
            asked.append(list(paths))
            return super().read(paths)

    monkeypatch.setattr(store, 'windows', lambda specs: lazy_arrays.windows(specs, 1000))
    store.write_model(tmp_path / 'model', {}, Recorded(arrays))
    assert [len(paths) for paths in asked] == [2] * 5
    unet = store.load_model(tmp_path / 'model')[1]['unet']
    assert all((unet[f'a{i}'] == i).all() for i in range(10))


def test_a_source_that_fails_halfway_leaves_nothing(tmp_path, monkeypatch):
    class Broken(Arrays):
        def read(self, paths):
            if 'unet/b' in paths:
                raise ValueError('unet/b is damaged')
            return super().read(paths)

    monkeypatch.setattr(store, 'windows', lambda specs: ([path] for path in specs))
    with pytest.raises(ValueError, match='unet/b is damaged'):
        store.write_model(tmp_path / 'model', {}, Broken({'unet/a': np.ones(3), 'unet/b': np.ones(3)}))
    assert list(tmp_path.iterdir()) == []
