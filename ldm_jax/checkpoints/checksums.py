"""Checksums that tell whether data is as it was written: arrays on the host and on devices, records, files.

crc32     of an array in memory or of a file's bytes
folded    of an array on devices: a sum that does not depend on how the array is cut into shards, so that any number
          of devices and hosts can verify what any other wrote
sealed    a record (JSON data) with its own checksum in it
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.errors import Failed
from ldm_jax.types import Array

SEAL = 'crc32'  # the key of a record's own checksum
QUEUE = 8


class Damaged(Failed):
    """Stored data is not as it was written."""


def crc32(data: bytes | np.ndarray) -> str:
    """The CRC-32 of bytes, or of an array's in C order, as eight hexadecimal digits."""
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return f'{zlib.crc32(data):08x}'


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its checksum. It must be JSON data without the key SEAL."""
    return {SEAL: _seal(record), **record}


def unsealed(found: Any, path: pathlib.Path) -> dict[str, Any]:
    """The record without its checksum. Raises Damaged, naming the file, where it is not what was sealed."""
    if not isinstance(found, dict) or SEAL not in found:
        raise Damaged(f'{path} is not what was written: it has no checksum of its own')
    record = {key: value for key, value in found.items() if key != SEAL}
    if found[SEAL] != _seal(record):
        raise Damaged(f'{path} is not what was written')
    return record


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON data of a file. Raises FileNotFoundError, and Damaged for what cannot be read."""
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f'{path} cannot be read ({str(error)[:200]})') from error


def _seal(record: Mapping[str, Any]) -> str:
    return crc32(json.dumps(record, sort_keys=True).encode())


def folded(leaves: Mapping[str, Array]) -> dict[str, str]:
    """The checksum of each array on devices, by name, as eight hexadecimal digits."""
    sums: dict[str, Array] = {}
    for i, (name, leaf) in enumerate(leaves.items()):
        sums[name] = fold(leaf)
        # Many are started before one is waited for; but CPUs abort when too many sums over devices stand in line.
        if i % QUEUE == 0 and jax.default_backend() == 'cpu':
            jax.block_until_ready(sums[name])
    return {name: f'{int(value):08x}' for name, value in sums.items()}


@jax.jit
def fold(x: Array) -> Array:
    """A uint32 of an array's bits and their places.

    Each word, combined with its place, goes through a bijection of 32 bits and the results are added modulo
    2^32: one changed word always changes the sum, and the order of adding does not.
    Ref: the bijection is lowbias32 of Wellons 2018, 'Prospecting for Hash Functions'.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    width = x.dtype.itemsize * 8
    words = jax.lax.bitcast_convert_type(x, jnp.dtype(f'uint{min(width, 32)}')).astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = jnp.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
    return jnp.sum(_mixed(words ^ _mixed(place + jnp.uint32(0x9E3779B9))), dtype=jnp.uint32)


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
