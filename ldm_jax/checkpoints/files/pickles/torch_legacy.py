"""PyTorch's files before 1.6: five pickles, then the storages' bytes.

    pickle    the magic number
    pickle    the protocol, 1001
    pickle    of the machine: {'little_endian': ..., ...}
    pickle    the object; where a tensor's bytes would be, it names a storage
    pickle    the storages' keys, in the order of
    storages  each 8 bytes, the number of elements, and the elements

Ref: torch/serialization.py, `_legacy_save` and `_legacy_load`.
"""

from __future__ import annotations

import struct

from ldm_jax.checkpoints.files import state_dict
from ldm_jax.checkpoints.files.pickles.allowed import Storage
from ldm_jax.checkpoints.files.pickles.unpickler import MAX_PICKLE, Unpickler
from ldm_jax.checkpoints.files.tensor_file import MappedFile, TensorFile, quoted

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def starts(start: bytes) -> bool:
    """Whether a file that starts so is one: its first pickle, of any protocol, is the magic number."""
    return start.startswith(b'\x80') and b'\x8a\x0a' + MAGIC.to_bytes(10, 'little') + b'.' in start[:24]


def read(file: MappedFile) -> TensorFile:
    """The file's mapping. Raises BadFile when it is damaged, or not a checkpoint of tensors by name."""
    unpickler = Unpickler(file, file.read(0, min(file.size, MAX_PICKLE)))
    if unpickler.load() != MAGIC:
        raise file.error('its magic number is not that of PyTorch.')
    protocol, machine = unpickler.load(), unpickler.load()
    if protocol != PROTOCOL or not isinstance(machine, dict) or machine.get('little_endian') is not True:
        raise file.error(
            f'its protocol is not {PROTOCOL}, or its numbers are not little-endian. Save it anew.'
        )
    value = unpickler.load()
    keys = unpickler.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise file.error('its list of storages is none. It is damaged.')
    sizes = unpickler.storages
    places, position = {}, unpickler.position
    for key in keys:
        if key in places or key not in sizes:
            raise file.error(f'storage {quoted(key)} comes twice, or no tensor is in it. It is damaged.')
        (count,) = struct.unpack('<q', file.read(position, 8))
        storage = sizes[key]
        if count != storage.total:
            raise file.error(
                f'storage {quoted(key)} has {count} elements and was said to have {storage.total}.'
            )
        places[key] = position + 8
        position += 8 + count * storage.dtype.itemsize
        if position > file.size:
            raise file.error(
                f'storage {quoted(key)} ends at byte {position} and the file at {file.size}. '
                'It is cut: fetch it again.'
            )
    if position != file.size:
        raise file.error(f'its storages end at byte {position} and the file at {file.size}.')

    def locate(storage: Storage) -> int:
        if storage.key not in places:
            raise file.error(f'storage {quoted(storage.key)} is named and not there. It is damaged.')
        have = sizes[storage.key]
        if storage.total * storage.dtype.itemsize != have.total * have.dtype.itemsize:
            raise file.error(f'storage {quoted(storage.key)} has two sizes. It is damaged.')
        return places[storage.key]

    return state_dict.tensor_file(file, value, unpickler.refused, locate)
