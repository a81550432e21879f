"""ArrayRecord files, ours and those of tf.train.Examples."""

import pickle

import numpy as np
import pytest

from ldm_jax.data import array_record
from ldm_jax.data.corrupt import Corrupt
from tests.data.images import BROKEN, assert_shows, image


def write(path, rows):
    with array_record.writing(path) as add:
        for row in rows:
            add(row)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    rows = [{'image': image(i), 'caption': f'number {i}', 'label': i, 'id': f'k{i}'} for i in range(5)]
    rows[3]['image'] = np.full((8, 12, 3), 9, np.uint8)
    rows[4]['image'] = BROKEN
    write(tmp_path / '0.array_record', rows[:2])
    write(tmp_path / '1.array_record', rows[2:])
    return str(tmp_path)


def test_rows_of_all_files_are_read_by_index(folder):
    source = array_record.Source(folder, label='label', key='id')
    assert len(source) == 5
    for i in (2, 0, 1):
        assert_shows(source[i]['image'], i)
        assert (source[i]['text'], source[i]['label']) == (f'number {i}', i)
    assert (source[3]['image'] == 9).all()
    assert source.name(4) == 'k4'
    with pytest.raises(Corrupt, match='k4: '):
        source[4]
    assert_shows(pickle.loads(pickle.dumps(source))[1]['image'], 1)


def test_tensorflow_examples_are_read(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example_pb2

    writer = ArrayRecordWriter(str(tmp_path / 'x.array_record'), 'group_size:1')
    for i in range(3):
        example = tf_example_pb2.Example()
        example.features.feature['jpg'].bytes_list.value.append(image(i))
        example.features.feature['caption'].bytes_list.value.append(f'Nº {i}'.encode())
        example.features.feature['cls'].int64_list.value.append(10 + i)
        writer.write(example.SerializeToString())
    writer.close()
    source = array_record.Source(str(tmp_path), image='jpg', label='cls')
    assert_shows(source[2]['image'], 2)
    assert (source[2]['text'], source[2]['label']) == ('Nº 2', 12)


def test_mistakes_are_named_at_once(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no field 'title'.*\['caption', 'id', 'label'\]"):
        array_record.Source(folder, text='{title}')
    with pytest.raises(ValueError, match=r"image='jpg'; have \['caption', 'id', 'image', 'label'\]"):
        array_record.Source(folder, image='jpg')
    (tmp_path / 'x').mkdir()
    with pytest.raises(FileNotFoundError, match='array_record'):
        array_record.Source(str(tmp_path / 'x'))
    (tmp_path / 'x' / 'bad.array_record').write_bytes(b'x' * 70000)
    with pytest.raises(ValueError, match='bad'):
        array_record.Source(str(tmp_path / 'x'))


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    def stopped():
        yield {'a': 1}
        assert list(tmp_path.iterdir()) == [tmp_path / 'x.array_record.ldm_jax-partial']
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / 'x.array_record', stopped())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'x.array_record.ldm_jax-partial').write_bytes(b'left by a kill')
    write(tmp_path / 'x.array_record', [{'a': 1}])
    assert [path.name for path in tmp_path.iterdir()] == ['x.array_record']
    assert len(array_record.records((str(tmp_path / 'x.array_record'),))) == 1
