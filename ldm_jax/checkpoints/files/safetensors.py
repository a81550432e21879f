"""Safetensors files: a length, a JSON header, then the tensors' bytes without holes; read mapped, written in a stream.

    8 bytes, little endian       length of the header
    header                       {"__metadata__": {str: str}, key: {"dtype", "shape", "data_offsets": [from, to]}}
    the rest                     the data; offsets count from here

The header is read by a parser for this one shape of JSON, so what a hostile one costs is bounded: a general
parser turns 100 MB of brackets into gigabytes.

Ref: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from ldm_jax.atomic import atomic_write
from ldm_jax.checkpoints.files.tensor_file import (
    MAX_AXES,
    MappedFile,
    Place,
    TensorFile,
    TensorSpec,
    quoted,
    representable,
)

DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16,
        'I64': np.int64, 'I32': np.int32, 'I16': np.int16, 'I8': np.int8,
        'U64': np.uint64, 'U32': np.uint32, 'U16': np.uint16, 'U8': np.uint8, 'BOOL': np.bool_,
        'C64': np.complex64,
        'F8_E4M3': ml_dtypes.float8_e4m3fn, 'F8_E5M2': ml_dtypes.float8_e5m2, 'F8_E8M0': ml_dtypes.float8_e8m0fnu,
    }.items()
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000  # bytes, the reference's bound
MAX_TENSORS = 100_000  # the largest public models have some thousands
MAX_TEXT = 16 << 20  # bytes, of all keys and metadata: kohya's training notes take one or two MB

# Possessive, so that a match never backtracks and holds no state for what it has passed.
_STRING = re.compile(rb'[ \t\r\n]*+"((?:[^"\\]++|\\.)*+)"[ \t\r\n]*+', re.DOTALL)
_INTEGERS = re.compile(
    rb'[ \t\r\n]*+\[[ \t\r\n]*+((?:[0-9]++[ \t\r\n]*+(?:,[ \t\r\n]*+)?+)*+)\][ \t\r\n]*+', re.DOTALL
)
_INTEGER = re.compile(rb'0|[1-9][0-9]{0,18}')
_SPACE = re.compile(rb'[ \t\r\n]*+')


def read(file: MappedFile) -> TensorFile:
    """The file's mapping. Raises BadFile when anything in its header is not as it should be."""
    if file.size < 8:
        raise file.error(f'{file.size} bytes are too few for a safetensors file. Fetch it again.')
    (length,) = struct.unpack('<Q', file.read(0, 8))
    if length > MAX_HEADER:
        raise file.error(f'its header claims {length} bytes; at most {MAX_HEADER} are allowed.')
    if length > file.size - 8:
        raise file.error(
            f'its header claims {length} bytes and {file.size - 8} are there. It is cut or damaged: fetch it again.'
        )
    metadata, entries = _Header(file, file.read(8, length)).parse()
    start, end = 8 + length, 0
    places = {}
    for key, (spec, begin, stop) in sorted(entries.items(), key=lambda entry: entry[1][1:]):
        if begin != end:
            what = 'overlaps the tensor before it' if begin < end else 'leaves a hole before it'
            raise file.error(
                f'{quoted(key)} {what}: it starts at {begin}, expected {end}. The header is damaged.'
            )
        if stop - begin != spec.nbytes:
            raise file.error(
                f'{quoted(key)} has {stop - begin} bytes; {NAMES[spec.dtype]} {list(spec.shape)} takes {spec.nbytes}.'
            )
        places[key] = Place(file, start + begin, spec)
        end = stop
    if start + end != file.size:
        raise file.error(
            f'its tensors end at byte {start + end} and the file at {file.size}. '
            'It is cut, or something was appended: fetch it again.'
        )
    # In the header's order, which is the writer's.
    return TensorFile([file], {key: places[key] for key in entries}, kind='safetensors', metadata=metadata)


def write(
    path: str | os.PathLike,
    specs: Mapping[str, TensorSpec],
    arrays: Iterable[tuple[str, np.ndarray]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a file, holding one array at a time.

    Wide types come first, each in the specs' order, so that every tensor is aligned to its type. The file
    appears under its name when it is whole and on the disk.

    Args:
        path: of the file; an older one there is replaced.
        specs: key -> shape and type, of all tensors.
        arrays: (key, array), each key once and in any order; jax arrays are fine.
        metadata: text by key.

    Raises ValueError for an array that has no spec, comes twice or differs from its spec, for a missing one,
    for a type that the format lacks, and for metadata that is not text. Nothing is left under the name then.
    """
    header, offsets = _header(specs, metadata or {})
    missing = dict.fromkeys(specs)
    with atomic_write(path, alone=True, sync=True) as partial, open(partial, 'wb') as out:
        out.write(header)
        for key, array in arrays:
            if key not in missing:
                raise ValueError(f'{quoted(key)} {"comes twice" if key in specs else "has no spec"}.')
            del missing[key]
            out.seek(len(header) + offsets[key])
            out.write(_bytes(key, np.asarray(array), specs[key]))
        if missing:
            raise ValueError(f'{len(missing)} tensors never came, the first {next(iter(missing))!r}.')


def _header(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """The length and the header, padded by spaces to a multiple of 8; and each tensor's offset."""
    entries: dict[str, object] = {}
    if metadata:
        for key, value in metadata.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise ValueError(f'Metadata are text by text; got {key!r}: {value!r}.')
        entries['__metadata__'] = dict(metadata)
    offsets, end = {}, 0
    for key, spec in sorted(specs.items(), key=lambda item: -item[1].dtype.itemsize):
        dtype = spec.dtype.newbyteorder('=')
        if dtype not in NAMES:
            raise ValueError(
                f'{quoted(key)}: safetensors has no type {spec.dtype}; have {sorted(map(str, NAMES))}.'
            )
        if key == '__metadata__':
            raise ValueError("A tensor cannot be called '__metadata__'.")
        offsets[key], end = end, end + spec.nbytes
        entries[key] = {
            'dtype': NAMES[dtype],
            'shape': [int(size) for size in spec.shape],
            'data_offsets': [offsets[key], end],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f'The header would take {len(text)} bytes; at most {MAX_HEADER} are allowed.')
    return struct.pack('<Q', len(text)) + text, offsets


def _bytes(key: str, array: np.ndarray, spec: TensorSpec) -> memoryview:
    """The array's little-endian bytes in C order; a contiguous one is not copied."""
    dtype = spec.dtype.newbyteorder('<')
    if array.shape != tuple(spec.shape) or array.dtype.newbyteorder('<') != dtype:
        raise ValueError(
            f'{quoted(key)} is {array.dtype} {array.shape}; its spec says {spec.dtype} {tuple(spec.shape)}.'
        )
    # Viewed as bytes because NumPy's buffers do not know bfloat16.
    flat = np.ascontiguousarray(array.astype(dtype, copy=False)).reshape(-1)
    return memoryview(flat.view(np.uint8))


class _Header:
    """The parser: a cursor in the header's bytes."""

    def __init__(self, file: MappedFile, text: bytes):
        self.file, self.text, self.position, self.text_used = file, text, 0, 0

    def parse(self) -> tuple[dict[str, str], dict[str, tuple[TensorSpec, int, int]]]:
        """(metadata, key -> (spec, begin, end))."""
        if not self.text.startswith(b'{'):  # as the reference asks: not even a space before
            raise self.error("expected '{'")
        metadata, entries = None, {}
        for key in self.keys():
            if key == '__metadata__':
                if metadata is not None:
                    raise self.error("'__metadata__' comes twice")
                metadata = {}
                for name in self.keys():
                    if name in metadata:
                        raise self.error(f'metadata {quoted(name)} comes twice')
                    metadata[name] = self.string()
                    if len(metadata) > MAX_TENSORS:
                        raise self.error(f'more than {MAX_TENSORS} metadata')
                continue
            if key in entries:
                raise self.error(f'{quoted(key)} comes twice')
            entries[key] = self.entry(key)
            if len(entries) > MAX_TENSORS:
                raise self.error(f'more than {MAX_TENSORS} tensors')
        if self.position != len(self.text):
            raise self.error('something follows the closing brace')
        return metadata or {}, entries

    def entry(self, key: str) -> tuple[TensorSpec, int, int]:
        found: dict[str, Any] = {}
        for field in self.keys():
            if field in found or field not in ('dtype', 'shape', 'data_offsets'):
                raise self.error(f'{quoted(key)} has {quoted(field)} twice, or it is no field of a tensor')
            found[field] = self.string() if field == 'dtype' else self.integers(key)
        if len(found) != 3:
            raise self.error(
                f'{quoted(key)} has only {sorted(found)}; dtype, shape and data_offsets are needed'
            )
        if found['dtype'] not in DTYPES:
            raise self.error(
                f'{quoted(key)} has type {quoted(found["dtype"])}; this reader has {sorted(DTYPES)}'
            )
        offsets = found['data_offsets']
        if len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self.error(f'{quoted(key)} has data_offsets {list(offsets)}; expected [from, to]')
        spec = TensorSpec(found['shape'], DTYPES[found['dtype']])
        if not representable(spec):
            raise self.error(f'{quoted(key)} has shape {list(spec.shape)}, more than an array can have')
        return spec, *offsets

    def keys(self) -> Iterable[str]:
        """The keys of the object at the cursor; the caller reads each value before it asks for the next."""
        self.expect(b'{')
        if self.skip(b'}'):
            return
        while True:
            key = self.string()
            self.expect(b':')
            yield key
            if self.skip(b'}'):
                return
            self.expect(b',')

    def string(self) -> str:
        match = _STRING.match(self.text, self.position)
        if match is None:
            raise self.error('expected a string')
        self.position = match.end()
        self.text_used += match.end(1) - match.start(1)
        if self.text_used > MAX_TEXT:
            raise self.error(f'more than {MAX_TEXT} bytes of keys and metadata')
        try:
            text = json.loads(b'"' + match[1] + b'"')
            text.encode()  # half a surrogate pair is no text
        except ValueError as error:
            raise self.error(f'a string is not valid: {error}') from None
        return text

    def integers(self, key: str) -> tuple[int, ...]:
        match = _INTEGERS.match(self.text, self.position)
        if match is None or match.end(1) - match.start(1) > 32 * MAX_AXES:
            raise self.error(f'{quoted(key)}: expected a list of at most {MAX_AXES} integers, none negative')
        self.position = match.end()
        words = match[1].strip(b' \t\r\n').split(b',') if match[1].strip(b' \t\r\n') else []
        if len(words) > MAX_AXES:
            raise self.error(f'{quoted(key)} has {len(words)} axes; an array has at most {MAX_AXES}')
        words = [word.strip(b' \t\r\n') for word in words]
        if not all(_INTEGER.fullmatch(word) for word in words):
            raise self.error(f'{quoted(key)}: expected integers below 10^19, none negative')
        return tuple(map(int, words))

    def expect(self, mark: bytes) -> None:
        if not self.skip(mark):
            raise self.error(f'expected {mark.decode()!r}')

    def skip(self, mark: bytes) -> bool:
        start = _SPACE.match(self.text, self.position).end()
        if self.text[start : start + 1] != mark:
            return False
        self.position = _SPACE.match(self.text, start + 1).end()
        return True

    def error(self, text: str) -> ValueError:
        return self.file.error(f'its header, at byte {self.position}: {text}. It is damaged: fetch it again.')
