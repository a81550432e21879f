"""What a PyTorch pickle may make: plain data, and descriptions of tensors.

A pickle is a program that names importable objects and asks for them to be called. Here a name is looked up in
CONSTRUCTORS, in STORAGES or in DTYPES, whose values are functions and types of this module; any other name gets
an `Inert`. Nothing is imported and nothing of the file's choice is called.

A constructor takes the arguments that the pickle gives and a `charge(bytes)` for what it allocates beyond its
arguments: a pickle can hand over one long list a million times. It raises ValueError for arguments that PyTorch
and NumPy would not write.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np

from ldm_jax.checkpoints.files.tensor_file import TensorSpec, representable

Charge = Callable[[int], None]
EXPANDED = 16 << 20  # bytes that a tensor may have beyond its storage by strides of 0

DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        'float64': np.float64, 'float32': np.float32, 'float16': np.float16, 'bfloat16': ml_dtypes.bfloat16,
        'int64': np.int64, 'int32': np.int32, 'int16': np.int16, 'int8': np.int8,
        'uint64': np.uint64, 'uint32': np.uint32, 'uint16': np.uint16, 'uint8': np.uint8, 'bool': np.bool_,
        'complex64': np.complex64, 'complex128': np.complex128,
        'float8_e4m3fn': ml_dtypes.float8_e4m3fn, 'float8_e5m2': ml_dtypes.float8_e5m2,
        'float8_e4m3fnuz': ml_dtypes.float8_e4m3fnuz, 'float8_e5m2fnuz': ml_dtypes.float8_e5m2fnuz,
        'float8_e8m0fnu': ml_dtypes.float8_e8m0fnu,
    }.items()
}  # fmt: skip
STORAGES = {
    'DoubleStorage': 'float64', 'FloatStorage': 'float32', 'HalfStorage': 'float16', 'BFloat16Storage': 'bfloat16',
    'LongStorage': 'int64', 'IntStorage': 'int32', 'ShortStorage': 'int16', 'CharStorage': 'int8',
    'ByteStorage': 'uint8', 'BoolStorage': 'bool', 'UntypedStorage': 'uint8',
    'ComplexFloatStorage': 'complex64', 'ComplexDoubleStorage': 'complex128',
}  # fmt: skip
NUMPY = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16')


@dataclasses.dataclass(slots=True, eq=False)
class Inert:
    """Stands where the pickle wanted something that is not allowed, or what that would have made or done."""

    name: str
    state: Any = None  # what BUILD would have set on it


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Constructor:
    name: str
    make: Callable[[tuple, Charge], Any]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StorageType:
    dtype: np.dtype


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TorchDtype:
    dtype: np.dtype


@dataclasses.dataclass(slots=True, eq=False)
class NumpyDtype:
    dtype: np.dtype  # BUILD may turn its byte order


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """`count` elements from element `start` of the file's storage `key`, which has `total` of them."""

    key: str
    dtype: np.dtype
    count: int
    start: int
    total: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Elements of a storage from `offset` on; offset and strides in elements of `spec.dtype`, bounds checked."""

    storage: Storage
    spec: TensorSpec
    offset: int
    strides: tuple[int, ...]


def find(module: str, name: str) -> Any | None:
    """What stands for an importable name, or None when it is refused."""
    if module in ('torch', 'torch.storage', 'torch.cuda'):
        if name in STORAGES:
            return StorageType(DTYPES[STORAGES[name]])
        if module == 'torch' and name in DTYPES:
            return TorchDtype(DTYPES[name])
    make = CONSTRUCTORS.get((module, name))
    return None if make is None else Constructor(f'{module}.{name}', make)


def storage(identity: Any) -> Storage | Inert:
    """The storage of a persistent id: ('storage', type, key, device, count), and a view in legacy files."""
    if not isinstance(identity, tuple) or not identity:
        raise ValueError('a persistent id that is no tuple')
    if identity[0] == 'module' and len(identity) > 1 and isinstance(identity[1], Inert):
        return identity[1]  # legacy files put the source code of a class beside it
    if identity[0] != 'storage' or len(identity) not in (5, 6):
        raise ValueError('a persistent id that is no storage')
    _, kind, key, _, total, *view = identity
    if isinstance(kind, Inert):  # of a type that NumPy lacks
        return Inert(kind.name)
    if not isinstance(kind, StorageType) or not isinstance(key, str) or not _counts((total,)):
        raise ValueError('a storage whose type, key or size is none')
    start, count = 0, total
    if view and view[0] is not None:
        if not isinstance(view[0], tuple) or len(view[0]) != 3 or not _counts(view[0][1:]):
            raise ValueError(f'storage {key[:40]!r} has a view that is none')
        _, start, count = view[0]
        if start + count > total:
            raise ValueError(f'storage {key[:40]!r} has {total} elements; its view ends at {start + count}')
    return Storage(key, kind.dtype, count, start, total)


def hashable(key: Any) -> Any:
    """A key that is cheap to hash, whoever chose it: text's hash is secret, an Inert's is its address.

    Python hashes nested tuples recursively, shared ones again and again, and large integers, tuples and complex
    numbers can be chosen to collide, which makes a dict quadratic. None of these is the name of a tensor.
    """
    if isinstance(key, list | dict):
        raise ValueError(f'a {type(key).__name__} as key')
    if isinstance(key, tuple | complex) or (isinstance(key, int) and abs(key) >> 60):
        return Inert('a key')
    return key


def _counts(values: Iterable[Any]) -> bool:
    """Whether all are integers that can count bytes."""
    return all(type(value) is int and 0 <= value < 1 << 60 for value in values)


def _rebuild_tensor(arguments: tuple, charge: Charge) -> Tensor | Inert:
    source, offset, shape, strides = arguments[:4]
    if isinstance(source, Inert):
        return source
    if not isinstance(source, Storage):
        raise ValueError('a tensor without a storage')
    metadata = arguments[6] if len(arguments) > 6 else None
    return _tensor(source, source.dtype, offset, shape, strides, metadata)


def _rebuild_tensor_v3(arguments: tuple, charge: Charge) -> Tensor | Inert:
    source, offset, shape, strides, _, _, kind, *metadata = arguments
    for part in (source, kind):
        if isinstance(part, Inert):
            return part
    if not isinstance(source, Storage) or not isinstance(kind, TorchDtype):
        raise ValueError('a tensor without a storage or a type')
    return _tensor(source, kind.dtype, offset, shape, strides, metadata[0] if metadata else None)


def _tensor(source: Storage, dtype: np.dtype, offset, shape, strides, metadata) -> Tensor | Inert:
    if isinstance(metadata, dict) and (metadata.get('conj') or metadata.get('neg')):
        return Inert('a tensor to be conjugated or negated on reading')
    lists = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides)
    if not lists or not _counts((offset, *shape, *strides)):
        raise ValueError('a tensor whose offset, shape or strides are no counts')
    spec = TensorSpec(shape, dtype)
    if not representable(spec):
        raise ValueError(f'a tensor of {len(shape)} axes with more elements than an array can have')
    have = source.count * source.dtype.itemsize
    if 0 not in shape:
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if (last + 1) * dtype.itemsize > have:
            raise ValueError(
                f'a tensor of shape {shape}, strides {strides}, offset {offset}, which ends at byte '
                f'{(last + 1) * dtype.itemsize} of storage {source.key[:40]!r} of {have} bytes'
            )
    if spec.nbytes > have + EXPANDED:
        raise ValueError(f'a tensor of {spec.nbytes} bytes, repeated from a storage of {have}')
    return Tensor(source, spec, offset, strides)


def _rebuild_parameter(arguments: tuple, charge: Charge) -> Tensor | Inert:
    if not isinstance(arguments[0], Tensor | Inert):
        raise ValueError('a parameter that is no tensor')
    return arguments[0]


def _rebuild_from_type(arguments: tuple, charge: Charge) -> Any:
    """A tensor with Python attributes, or of a subclass: (function, class, its arguments, attributes)."""
    function, _, inner = arguments[:3]
    if isinstance(function, Inert):
        return function
    if not isinstance(function, Constructor) or function.make not in (_rebuild_tensor, _rebuild_tensor_v3):
        raise ValueError('a tensor of a subclass that is not rebuilt as one')
    return function.make(inner, charge)


def _dict(arguments: tuple, charge: Charge) -> dict:
    if not arguments:
        return {}
    (pairs,) = arguments
    if isinstance(pairs, dict):
        pairs = pairs.items()
    elif not isinstance(pairs, list | tuple):
        raise ValueError('a dict made of no list of pairs')
    charge(128 * len(pairs))
    return {hashable(key): value for key, value in pairs}


def _default_dict(arguments: tuple, charge: Charge) -> dict:
    return _dict(arguments[1:], charge)


def _list(arguments: tuple, charge: Charge) -> list:
    """Also of sets, whose items would have to be hashed."""
    if not arguments:
        return []
    (items,) = arguments
    if not isinstance(items, list | tuple):
        raise ValueError('a list or set made of no list')
    charge(8 * len(items))
    return list(items)


def _size(arguments: tuple, charge: Charge) -> tuple:
    (sizes,) = arguments
    if not isinstance(sizes, list | tuple) or len(sizes) > 64:
        raise ValueError('a torch.Size made of no shape')
    return tuple(sizes)


def _device(arguments: tuple, charge: Charge) -> str:
    name, *index = arguments
    if not isinstance(name, str) or len(name) > 64 or not _counts(index) or len(index) > 1:
        raise ValueError('a torch.device made of no device')
    return ':'.join((name, *map(str, index)))


def _encode(arguments: tuple, charge: Charge) -> bytes:
    """bytes in protocol 2: codecs.encode(text, 'latin1')."""
    text, codec = arguments
    if not isinstance(text, str) or codec not in ('latin1', 'latin-1'):
        raise ValueError('bytes that are not encoded as latin1')
    charge(len(text))
    return text.encode('latin1')


def _bytes(arguments: tuple, charge: Charge) -> bytes:
    if not arguments:
        return b''
    (data,) = arguments
    if not isinstance(data, bytes):
        raise ValueError('bytes made of no text')
    return data


def _complex(arguments: tuple, charge: Charge) -> complex:
    real, imaginary = arguments
    if type(real) is not float or type(imaginary) is not float:
        raise ValueError('a complex number made of no numbers')
    return complex(real, imaginary)


def _numpy_dtype(arguments: tuple, charge: Charge) -> NumpyDtype | Inert:
    code = arguments[0]
    if not isinstance(code, str) or code not in NUMPY:
        return Inert('numpy.dtype')
    return NumpyDtype(np.dtype(f'<{code}'))


def _numpy_scalar(arguments: tuple, charge: Charge) -> int | float | complex | bool | Inert:
    kind, raw = arguments
    if isinstance(kind, Inert):
        return kind
    if isinstance(raw, str):  # Python 2's bytes, read as the text they happen to be
        raw = raw.encode()
    if not isinstance(kind, NumpyDtype) or not isinstance(raw, bytes) or len(raw) != kind.dtype.itemsize:
        raise ValueError('a NumPy scalar whose bytes are not those of its type')
    return np.frombuffer(raw, kind.dtype)[0].item()


CONSTRUCTORS: dict[tuple[str, str], Callable[[tuple, Charge], Any]] = {
    ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v3'): _rebuild_tensor_v3,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    ('torch._utils', '_rebuild_parameter_with_state'): _rebuild_parameter,
    ('torch._tensor', '_rebuild_from_type_v2'): _rebuild_from_type,
    ('torch', 'Size'): _size,
    ('torch', 'device'): _device,
    ('collections', 'OrderedDict'): _dict,
    ('collections', 'Counter'): _dict,
    ('collections', 'defaultdict'): _default_dict,
    ('_codecs', 'encode'): _encode,
    ('numpy', 'dtype'): _numpy_dtype,
    ('numpy.core.multiarray', 'scalar'): _numpy_scalar,
    ('numpy._core.multiarray', 'scalar'): _numpy_scalar,
} | {
    (module, name): make
    for module in ('builtins', '__builtin__')
    for name, make in {
        'dict': _dict, 'list': _list, 'set': _list, 'frozenset': _list,
        'bytes': _bytes, 'bytearray': _bytes, 'complex': _complex,
    }.items()
}  # fmt: skip
