"""Tar shards as img2dataset writes them."""

import io
import json
import os
import pickle
import tarfile

import pytest

from ldm_jax.data import index, webdataset
from ldm_jax.data.corrupt import Corrupt
from tests.data.images import BROKEN, assert_shows, image


def write(path, files):
    with tarfile.open(path, 'w') as archive:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def sample(i, **files):
    names = {
        'jpg': image(i, kind='PNG'),
        'json': json.dumps({'key': f'{i:05}', 'caption': f'of json {i}', 'width': 12}),
    }
    return {f'{i:05}.{suffix}': data for suffix, data in (names | files).items()}


@pytest.fixture
def shards(tmp_path):
    write(tmp_path / '00000.tar', sample(0, txt='first') | sample(1, txt='second', cls='7'))
    write(
        tmp_path / '00001.tar',
        {f'./deep.er/{name}': data for name, data in sample(2).items()}
        | {'00003.json': '{}', '00003.txt': 'no image'}
        | sample(4, jpg=BROKEN, txt='broken')
        | sample(5, json='{'),
    )
    return str(tmp_path)


def test_samples_are_read_from_all_shards_by_index(shards):
    source = webdataset.Source(shards)
    assert len(source) == 5
    for i in (2, 0, 1):
        assert_shows(source[i]['image'], i)
    assert [source[i]['text'] for i in range(3)] == ['first', 'second', 'of json 2']
    assert source.caption(1) == 'second'
    assert source.shape(1) == (8, 12)
    assert source.name(2) == f'{shards}/00001.tar/deep.er/00002'


def test_the_fields_of_json_and_classes_can_be_named(shards):
    source = webdataset.Source(f'{shards}/00000.tar', text='{caption} or {txt}, {width} wide, {key}')
    assert source[0]['text'] == 'first or first, 12 wide, 00000'
    labelled = webdataset.Source(f'{shards}/00000.tar', label='cls')
    assert labelled[1]['label'] == 7
    with pytest.raises(Corrupt, match='00000.*cls is None.*whole number'):
        labelled[0]


def test_broken_images_and_json_are_corrupt_and_named(shards):
    source = webdataset.Source(shards)
    with pytest.raises(Corrupt, match='00001.tar/00004: '):
        source[3]
    with pytest.raises(Corrupt, match='00001.tar/00005: its json is broken'):
        source[4]


def test_mistakes_are_named_at_once(shards, tmp_path):
    with pytest.raises(ValueError, match=r"no field 'title'.*'width'.*key\.json"):
        webdataset.Source(shards, text='{title}')
    with pytest.raises(FileNotFoundError, match=r'\.tar'):
        webdataset.Source(str(tmp_path / 'nowhere'))
    (tmp_path / 'x' / 'y').mkdir(parents=True)
    (tmp_path / 'x' / 'bad.tar').write_bytes(b'x' * 2000)
    with pytest.raises(ValueError, match=r'bad\.tar is no uncompressed tar'):
        webdataset.Source(str(tmp_path / 'x'))
    write(tmp_path / 'x' / 'bad.tar', {'a.txt': 'x'})
    with pytest.raises(ValueError, match='holds no images'):
        webdataset.Source(str(tmp_path / 'x'))


def test_a_shard_is_indexed_once_until_it_changes(shards, monkeypatch):
    passes, indexed = [], webdataset._index
    monkeypatch.setattr(webdataset, '_index', lambda shard: passes.append(shard) or indexed(shard))
    for _ in range(3):
        webdataset.Source(shards)
    assert len(passes) == 2
    write(f'{shards}/00000.tar', sample(9, txt='new'))
    os.utime(f'{shards}/00000.tar', (1, 1))
    source = webdataset.Source(shards)
    assert len(passes) == 3
    assert source[0]['text'] == 'new'
    assert_shows(source[0]['image'], 9)


def test_copies_read_the_same_without_the_index(shards):
    source = pickle.loads(pickle.dumps(webdataset.Source(shards, image_size=4)))
    assert_shows(source[1]['image'], 1, (4, 4, 3))
    assert source.stamp == index.stamp(source.table.shards)
    assert hash(source) == hash(webdataset.Source(shards, image_size=4))
