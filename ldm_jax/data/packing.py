"""Rows of ArrayRecord files: named values that say what they are.

A row is a MessagePack map of text, numbers, lists, bytes (of encoded images) and arrays; an array is an extension of
type 1 with (shape, name of its dtype, its bytes), as flax.serialization has it, whose msgpack_restore reads these
rows. Rows of another common kind, tf.train.Example, are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes  # noqa: F401 (so that numpy knows 'bfloat16' by name)
import msgpack
import numpy as np

ARRAY = 1  # flax.serialization's number for it


def pack(row: Mapping[str, Any]) -> bytes:
    """A row's bytes."""
    return msgpack.packb(dict(row), default=_extension)


def unpack(data: bytes) -> dict[str, Any]:
    """The row of `pack`, or of a tf.train.Example, whose lists of one become values. Raises ValueError."""
    # A map begins with 0x80-0x8f, 0xde or 0xdf; an Example with 0x0a, or is empty.
    if data[:1] in (b'', b'\n'):
        return _example(data)
    try:
        row = msgpack.unpackb(data, ext_hook=_array)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f'neither MessagePack nor tf.train.Example: {error}') from None
    if not isinstance(row, dict):
        raise ValueError(f'a row is a map of names to values; this is {type(row).__name__}')
    return row


def _extension(value: Any) -> msgpack.ExtType:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f'A row holds text, numbers, bytes and arrays; got {type(value).__name__}.')
    array = np.asarray(value)
    return msgpack.ExtType(ARRAY, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def _array(code: int, data: bytes) -> Any:
    if code != ARRAY:
        raise ValueError(f'unknown extension {code}')
    shape, dtype, values = msgpack.unpackb(data)
    return np.frombuffer(values, np.dtype(dtype)).reshape(shape)


def _example(data: bytes) -> dict[str, Any]:
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example_pb2

    try:
        features = tf_example_pb2.Example.FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(f'not a tf.train.Example: {error}') from None
    row = {}
    for name, feature in features.items():
        values = list(getattr(feature, feature.WhichOneof('kind') or 'bytes_list').value)
        row[name] = values[0] if len(values) == 1 else values or None
    return row
