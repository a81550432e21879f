"""Files by pattern, and arrays that are gathered once."""

import os

import numpy as np
import pytest

from ldm_jax.data import index


def test_files_are_found_by_folder_pattern_range_and_list(tmp_path):
    names = ['00000.tar', '00001.tar', '00010.tar', 'deep/x.tar']
    for name in [*names, 'other.txt']:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(path):
        return [file.removeprefix(f'{tmp_path}/') for file in index.files(path, ('.tar',))]

    assert found(str(tmp_path)) == names
    assert found(f'{tmp_path}/0000*.tar') == names[:2]
    assert found(f'{tmp_path}/{{00000..00001}}.tar') == names[:2]
    assert found((f'{tmp_path}/deep', f'{tmp_path}/00010.tar')) == ['deep/x.tar', '00010.tar']
    for missing in (f'{tmp_path}/none*.tar', f'{tmp_path}/{{00000..00002}}.tar', str(tmp_path / 'nowhere')):
        with pytest.raises(FileNotFoundError, match=r'No \.tar file at .*pattern'):
            index.files(missing, ('.tar',))
    shard = found_first(tmp_path)
    for twice in ((shard, shard), (shard, str(tmp_path)), (shard, os.path.relpath(shard))):
        with pytest.raises(ValueError, match=r'files named more than once: 1 \(.*\.tar\).*name each once'):
            index.files(twice, ('.tar',))


def found_first(folder):
    return index.files(str(folder), ('.tar',))[0]


def test_arrays_are_made_once_for_each_key_and_a_failure_leaves_nothing(cache):
    calls = []

    def make():
        calls.append(1)
        return {'a': np.arange(3), 'b': np.array([b'x', b'yz'])}

    for _ in range(2):
        found = index.arrays('kind', 'key', make)
        assert found['a'].tolist() == [0, 1, 2]
        assert found['b'].tolist() == [b'x', b'yz']
    index.arrays('kind', 'other', make)
    assert len(calls) == 2
    with pytest.raises(ZeroDivisionError):
        index.arrays('kind', 'bad', lambda: 1 / 0)
    assert sorted(path.name for path in cache.rglob('*.*')) == ['key.npz', 'other.npz']
