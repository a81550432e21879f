"""Parameters that are read when they are wanted: what conversions pass along instead of whole trees.

A source of leaves knows shapes and dtypes by path ('unet/conv_in/kernel') and reads a few arrays at a time, so
that a model of any size goes through in bounded memory.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import ml_dtypes
import numpy as np

from ldm_jax.checkpoints.files.tensor_file import TensorSpec

_NOT_NUMPY_S = {
    np.dtype(kind)
    for kind in (
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2fnuz,
        ml_dtypes.float8_e8m0fnu,
    )
}
WINDOW = 3 * 2**27  # bytes of arrays that are held at a time; the largest single array may exceed it


class Leaves(Protocol):
    """Parameters by path."""

    specs: Mapping[str, TensorSpec]

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]: ...  # together, as they are stored


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Leaves that are in memory already."""

    arrays: Mapping[str, np.ndarray]

    @functools.cached_property
    def specs(self) -> dict[str, TensorSpec]:
        return {path: TensorSpec(array.shape, array.dtype) for path, array in self.arrays.items()}

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        return {path: np.asarray(self.arrays[path]) for path in paths}


@dataclasses.dataclass(frozen=True)
class Cast:
    """Leaves whose floating-point arrays are read in another dtype; integers stay as they are.

    Raises ValueError, when it is read, for a number that the dtype cannot hold: float16 ends at 65504.
    """

    leaves: Leaves
    dtype: np.dtype

    @functools.cached_property
    def specs(self) -> dict[str, TensorSpec]:
        return {
            path: TensorSpec(spec.shape, self.dtype if is_float(spec.dtype) else spec.dtype)
            for path, spec in self.leaves.specs.items()
        }

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        arrays = self.leaves.read(paths)
        for path, array in arrays.items():
            arrays[path] = cast(path, array, self.dtype)
        return arrays


@dataclasses.dataclass(frozen=True)
class Only:
    """The leaves of some parts."""

    leaves: Leaves
    parts: tuple[str, ...]

    @functools.cached_property
    def specs(self) -> dict[str, TensorSpec]:
        return {path: spec for path, spec in self.leaves.specs.items() if part_of(path) in self.parts}

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        return self.leaves.read(paths)


@dataclasses.dataclass(frozen=True)
class Joined:
    """The leaves of several sources, which share no path."""

    sources: tuple[Leaves, ...]

    @functools.cached_property
    def specs(self) -> dict[str, TensorSpec]:
        return {path: spec for leaves in self.sources for path, spec in leaves.specs.items()}

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        found = {}
        for leaves in self.sources:
            found |= leaves.read([path for path in paths if path in leaves.specs])
        return {path: found[path] for path in paths}


def cast(path: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A floating-point array in another dtype; one of integers as it is.

    Raises ValueError, naming the path, for a number that the dtype cannot hold.
    """
    if not is_float(array.dtype) or array.dtype == dtype:
        return array
    with np.errstate(over='ignore'):
        found = array.astype(dtype)
    narrows = float(ml_dtypes.finfo(dtype).max) < float(ml_dtypes.finfo(array.dtype).max)
    if narrows and not all_finite(found) and all_finite(array):
        raise ValueError(
            f'{path} has a value beyond {dtype}: {np.abs(array).max():.3g}. Choose bfloat16 or float32, which have '
            'the range.'
        )
    return found


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array in C order, copied if need be, in blocks that stay in the cache: transposes take half the time."""
    if array.flags.c_contiguous:
        return np.asarray(array)
    axis = int(np.argmax(array.strides))  # the slowest in memory
    rows = max(16, 2**18 // max(1, array.nbytes // array.shape[axis]))
    out, index = np.empty(array.shape, array.dtype), [slice(None)] * array.ndim
    for i in range(0, array.shape[axis], rows):
        index[axis] = slice(i, i + rows)
        out[tuple(index)] = array[tuple(index)]
    return out


def part_of(path: str) -> str:
    """'unet' of 'unet/conv_in/kernel'."""
    return path.partition('/')[0]


def windows(specs: Mapping[str, TensorSpec], most: int = WINDOW) -> Iterator[list[str]]:
    """The paths in their order, as many at a time as have `most` bytes together (one at least)."""
    held, size = [], 0
    for path, spec in specs.items():
        if held and size + spec.nbytes > most:
            yield held
            held, size = [], 0
        held.append(path)
        size += spec.nbytes
    if held:
        yield held


def is_float(dtype: np.dtype) -> bool:
    """Whether a dtype, ml_dtypes' included, is of floating-point numbers."""
    return np.issubdtype(dtype, np.floating) or np.dtype(dtype) in _NOT_NUMPY_S


def all_finite(array: np.ndarray) -> bool:
    """Whether an array has neither NaN nor infinity; a megabyte at a time, so that it costs no memory."""
    if not is_float(array.dtype):
        return True
    flat = array.reshape(-1) if array.flags.c_contiguous else np.ravel(array, order='K')
    # Halves have no fast isfinite: their exponent is all ones where they are not finite.
    exponent = {np.dtype(np.float16): 0x7C00, np.dtype(ml_dtypes.bfloat16): 0x7F80}.get(array.dtype)
    step = 2**18
    for i in range(0, flat.size, step):
        piece = flat[i : i + step]
        if exponent is None:
            if not np.isfinite(piece).all():
                return False
        elif ((piece.view(np.uint16) & exponent) == exponent).any():
            return False
    return True
