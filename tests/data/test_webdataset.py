"""Tar shards as img2dataset writes them."""

import io
import json
import os
import pickle
import tarfile

import pytest

from ldm_jax.data import index, tar_shards, webdataset
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
    passes, find = [], tar_shards.find
    monkeypatch.setattr(tar_shards, 'find', lambda shard: passes.append(shard) or find(shard))
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


def test_other_suffixes_are_named_with_the_setting_that_chooses(tmp_path, caplog):
    write(
        tmp_path / 'a.tar',
        {'s1.input.png': image(1), 's1.target.png': image(2), 's1.txt': 'x', '.s1.jpg': 'y'},
    )
    with pytest.raises(ValueError) as raised:
        webdataset.Source(str(tmp_path))
    assert "holds no images; the suffixes are 'input.png' (1), 'target.png' (1), 'txt' (1)" in str(
        raised.value
    )
    assert "image='input.png'" in str(raised.value)
    with pytest.raises(ValueError, match=r"holds no images 'mask\.png'; the suffixes are 'input\.png' \(1\)"):
        webdataset.Source(str(tmp_path), image='mask.png')
    source = webdataset.Source(str(tmp_path), image='target.png')
    assert_shows(source[0]['image'], 2)
    assert source[0]['text'] == 'x'
    assert caplog.messages == [f'{tmp_path}: left out hidden files: 1 (.s1.jpg).']


def test_a_sample_that_is_there_twice_is_read_twice_and_named(tmp_path, caplog):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w') as archive:
        for i, name in enumerate(['s1.jpg', 's1.txt', 's2.txt', 's2.jpg', 's1.jpg', 's1.txt', 's2.json']):
            data = (
                image(i) if name.endswith('jpg') else b'{}' if name.endswith('json') else f'text {i}'.encode()
            )
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    source = webdataset.Source(str(path))
    assert [source[i]['text'] for i in range(len(source))] == ['text 1', 'text 2', 'text 5']
    for i, shown in enumerate((0, 3, 4)):
        assert_shows(source[i]['image'], shown)
    assert caplog.messages == [
        f'{path}: files that are there twice: 1 ({path}/s1.jpg); each begins a sample of its own.'
    ]


def test_samples_without_an_image_and_with_several_are_counted_and_named(tmp_path, caplog):
    files = sample(0, txt='x') | {'00001.txt': 'no image'} | sample(2, txt='y', png=image(7))
    path = write(tmp_path / 'a.tar', files)
    source = webdataset.Source(path)
    assert_shows(source[1]['image'], 2)
    assert caplog.messages == [
        f'{path}: left out samples without an image: 1 ({path}/00001).',
        f'{path}: samples with several images: 1 ({path}/00002); the first is taken, image= says which.',
    ]


def test_texts_and_json_that_are_none_are_corrupt_and_named(tmp_path):
    path = write(
        tmp_path / 'a.tar',
        sample(0, txt='café'.encode('cp1252'))
        | sample(1, json='[1, 2]')
        | sample(2, json='{"caption": NaN}')
        | sample(3, json='{"caption": ["a cat", "a feline"]}')
        | sample(4, txt='a café'.encode('utf-16')),
    )
    source = webdataset.Source(path)
    for i, reason in enumerate(
        [r'00000\.txt: not UTF-8', r'00001: its json is no object: \[1, 2\]', 'caption is nan']
    ):
        with pytest.raises(Corrupt, match=reason):
            source[i]
    assert source.captions(3) == ('a cat', 'a feline')
    assert source[4]['text'] == 'a café'
