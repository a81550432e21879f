"""Folders in the layouts of Hugging Face's `datasets` (5.2.0 wrote what these imitate)."""

import json
import pickle

import pyarrow as pa
import pytest
from pyarrow import parquet

from ldm_jax.data import hf_datasets
from ldm_jax.data.corrupt import Corrupt
from tests.data.images import BROKEN, assert_shows, image

FEATURES = {
    'image': {'_type': 'Image'},
    'caption': {'dtype': 'string', '_type': 'Value'},
    'label': {'names': ['x', 'b', 'a'], '_type': 'ClassLabel'},
}


def table(numbers, features=FEATURES, column='image'):
    rows = {
        column: [{'bytes': image(i), 'path': None} for i in numbers],
        'caption': [f'caption {i}' for i in numbers],
        'label': [i % 3 for i in numbers],
        'nested': [{'words': [f'w{i}', 'v']} for i in numbers],
    }
    noted = {'huggingface': json.dumps({'info': {'features': features}})} if features else None
    return pa.table(rows).replace_schema_metadata(noted)


def save_to_disk(folder, *files):
    folder.mkdir(parents=True)
    names = [f'data-{n:05}-of-{len(files):05}.arrow' for n in range(len(files))]
    for name, rows in zip(names, files, strict=True):
        with pa.OSFile(str(folder / name), 'wb') as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=2)
    (folder / 'state.json').write_text(json.dumps({'_data_files': [{'filename': name} for name in names]}))
    (folder / 'dataset_info.json').write_text(json.dumps({'features': FEATURES}))


@pytest.fixture(params=['save_to_disk', 'splits', 'parquet', 'arrow file'])
def path(request, tmp_path):
    first, second, other = table(range(5)), table(range(5, 7)), table([9])
    folder = tmp_path / 'set'
    if request.param == 'save_to_disk':
        save_to_disk(folder, first, second)
    elif request.param == 'splits':
        save_to_disk(folder / 'train', first, second)
        save_to_disk(folder / 'test', other)
        (folder / 'dataset_dict.json').write_text('{"splits": ["train", "test"]}')
    elif request.param == 'parquet':
        (folder / 'data').mkdir(parents=True)
        parquet.write_table(first, folder / 'data' / 'train-00000-of-00002.parquet', row_group_size=2)
        parquet.write_table(second, folder / 'data' / 'train-00001-of-00002.parquet')
        parquet.write_table(other, folder / 'data' / 'test-00000-of-00001.parquet')
    else:
        folder.mkdir()
        for n, rows in enumerate((first, second)):
            with (
                pa.OSFile(str(folder / f'{n}.arrow'), 'wb') as sink,
                pa.ipc.new_file(sink, rows.schema) as writer,
            ):
                writer.write_table(rows)
    return str(folder)


def test_rows_are_read_by_index_with_classes_spelled_and_numbered(path):
    source = hf_datasets.Source(path, text='{caption}: {label}, {nested[words][0]}', label='label')
    assert len(source) == 7
    for i in (6, 0, 4, 2):
        example = source[i]
        assert_shows(example['image'], i)
        assert example['text'] == f'caption {i}: {"xba"[i % 3]}, w{i}'
        assert example['label'] == i % 3
        assert source.shape(i) == (8, 12)
    assert len(source.stamp) == 32
    assert_shows(pickle.loads(pickle.dumps(source))[5]['image'], 5)
    with pytest.raises(IndexError, match='0 .. 6; got 7'):
        source[7]


def test_a_folder_with_one_split_ignores_the_setting_others_follow_it(path, tmp_path):
    several = (tmp_path / 'set' / 'test').is_dir() or (tmp_path / 'set' / 'data').is_dir()
    source = hf_datasets.Source(path, split='test')
    assert len(source) == (1 if several else 7)
    assert_shows(source[0]['image'], 9 if several else 0)


def test_mistakes_are_named_at_once(tmp_path):
    save_to_disk(tmp_path / 'one', table(range(3)))
    with pytest.raises(ValueError, match=r"no field 'title'.*The columns are \['image', 'caption'"):
        hf_datasets.Source(str(tmp_path / 'one'), text='{title}')
    with pytest.raises(ValueError, match=r"no column 'jpeg'; have \['image'"):
        hf_datasets.Source(str(tmp_path / 'one'), image='jpeg')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        hf_datasets.Source(str(tmp_path / 'nowhere'))
    save_to_disk(tmp_path / 'odd', table(range(3), features=None, column='pixels'))
    with pytest.raises(ValueError, match=r"which column holds the images.*\['pixels', 'caption'"):
        hf_datasets.Source(str(tmp_path / 'odd'))
    assert_shows(hf_datasets.Source(str(tmp_path / 'odd'), image='pixels')[1]['image'], 1)
    (tmp_path / 'bad.parquet').write_bytes(b'x' * 100)
    with pytest.raises(ValueError, match=r'bad\.parquet is no Parquet file'):
        hf_datasets.Source(str(tmp_path / 'bad.parquet'))
    (tmp_path / 'bad.arrow').write_bytes(b'x' * 100)
    with pytest.raises(ValueError, match=r'bad\.arrow is no Arrow file'):
        hf_datasets.Source(str(tmp_path / 'bad.arrow'))


def test_a_split_that_is_not_there_is_named(tmp_path):
    for split in ('train', 'validation'):
        parquet.write_table(table([1]), tmp_path / f'{split}-00000-of-00001.parquet')
    with pytest.raises(FileNotFoundError, match=r"split 'test'; have \['train', 'validation'\]"):
        hf_datasets.Source(str(tmp_path), split='test')
    assert len(hf_datasets.Source(str(tmp_path), split='validation')) == 1


def test_parquet_is_rewritten_once(tmp_path, monkeypatch, cache):
    parquet.write_table(table(range(3)), tmp_path / 'x.parquet')
    for _ in range(2):
        assert_shows(hf_datasets.Source(str(tmp_path / 'x.parquet'))[2]['image'], 2)
        monkeypatch.setattr(parquet, 'ParquetFile', None)
    assert [path.suffix for path in (cache / 'arrow').iterdir()] == ['.arrow']


def test_images_as_plain_bytes_and_broken_ones(tmp_path):
    rows = pa.table({'jpg': [image(0), BROKEN, None], 'caption': ['a', 'b', None]})
    save_to_disk(tmp_path / 'set', rows)
    source = hf_datasets.Source(str(tmp_path / 'set'))
    assert_shows(source[0]['image'], 0)
    with pytest.raises(Corrupt, match='row 1 of .*set'):
        source[1]
    with pytest.raises(Corrupt, match='row 2 of .*no encoded image'):
        source[2]
