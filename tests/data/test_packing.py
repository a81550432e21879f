"""Rows that say what they are, as others read and write them."""

import ml_dtypes
import numpy as np
import pytest
from flax import serialization

from ldm_jax.data import packing

ROW = {
    'text': 'ein Käse',
    'image': b'\x00\xff',
    'label': 3,
    'score': 0.5,
    'tags': ['a', 'b'],
    'moments': np.arange(6, dtype=np.float16).reshape(1, 2, 3),
    'context': np.arange(4).astype(ml_dtypes.bfloat16),
    'size': np.array([1, 2], np.int32),
}


def assert_rows_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, np.ndarray):
            assert ours[name].dtype == value.dtype
            np.testing.assert_array_equal(ours[name], value)
        else:
            assert ours[name] == value


def test_rows_come_back_and_flax_reads_them():
    assert_rows_equal(packing.unpack(packing.pack(ROW)), ROW)
    assert_rows_equal(serialization.msgpack_restore(packing.pack(ROW)), ROW)
    arrays = {'a': np.ones((2, 3), np.float32), 'b': 'text'}
    assert_rows_equal(packing.unpack(serialization.msgpack_serialize(arrays)), arrays)


def test_tensorflow_examples_are_read():
    from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example_pb2

    example = tf_example_pb2.Example()
    features = example.features.feature
    features['image'].bytes_list.value.append(b'\x89PNG')
    features['label'].int64_list.value.append(7)
    features['scores'].float_list.value.extend([0.5, 0.25])
    features['nothing'].bytes_list.SetInParent()
    row = packing.unpack(example.SerializeToString())
    assert row == {'image': b'\x89PNG', 'label': 7, 'scores': [0.5, 0.25], 'nothing': None}


@pytest.mark.parametrize(
    'data', [b'\xc1\xc1', b'\x93\x01\x02\x03', b'\n\xff\xff', b'\x81\xa1', b'\x81\xa1a\xd4\x09\x00']
)
def test_other_bytes_are_a_value_error(data):
    with pytest.raises(ValueError):
        packing.unpack(data)


def test_what_a_row_cannot_hold_is_named():
    with pytest.raises(TypeError, match='text, numbers, bytes and arrays; got set'):
        packing.pack({'a': {1}})
