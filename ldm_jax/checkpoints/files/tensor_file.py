"""What every kind of file becomes: a read-only mapping from key to mapped array.

A tensor is a place in a file. Nothing is read before a key is asked for, and then only that tensor's pages are
mapped; they leave the process when the caller drops the array. Sizes are checked at opening, against the file
that stays open: one that is replaced under its name is not noticed, one that is cut while mapped is.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import mmap
import os
import pathlib
import stat
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from ldm_jax.errors import Failed

CHUNK = 1 << 20  # bytes, of a streamed read
MAX_AXES = 64  # NumPy's


class BadFile(Failed):
    """A file that cannot be read as what it should be; says which, where, why, and what to do."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """The shape and type of a stored tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous copy, in Python's integers, which do not overflow."""
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


def representable(spec: TensorSpec) -> bool:
    """Whether NumPy can have such an array, which counts the axes that are not empty even where one is."""
    sizes = tuple(size for size in spec.shape if size)
    return len(spec.shape) <= MAX_AXES and TensorSpec(sizes, spec.dtype).nbytes < 1 << 63


def quoted(text: str, most: int = 120) -> str:
    """A name out of a file, as an error shows it: a hostile one may have megabytes."""
    return repr(text if len(text) <= most else text[:most] + '...')


class MappedFile:
    """An open regular file; the only way in which the readers touch the disk.

    Raises:
        FileNotFoundError: there is none.
        BadFile: it is a folder, a pipe or a device.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        mode = os.stat(self.path).st_mode  # before opening, which waits forever on a pipe
        if stat.S_ISDIR(mode):
            raise BadFile(f'{self.path} is a folder; open_folder reads those.')
        if not stat.S_ISREG(mode):
            raise BadFile(f'{self.path} is no regular file.')
        self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, 'O_BINARY', 0))
        self._close = weakref.finalize(self, os.close, self._descriptor)  # at the latest when nobody has it
        self.size = os.fstat(self._descriptor).st_size

    def error(self, text: str) -> BadFile:
        return BadFile(f'{self.path}: {text}')

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`; BadFile when the file ends before."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise self.error(
                f'bytes {offset} to {offset + count} lie beyond its end at {self.size}. '
                'It is cut or damaged: fetch it again.'
            )
        parts = []
        while count:
            part = os.pread(self._open(), min(count, CHUNK), offset)
            if not part:
                raise self.error('it became shorter while it was read.')
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return b''.join(parts)

    def array(self, offset: int, spec: TensorSpec, strides: Sequence[int] | None = None) -> np.ndarray:
        """The tensor of `spec` whose first element is at `offset`; strides, if not contiguous, in bytes.

        The caller has checked that it lies in the file; NumPy checks again that it lies in the mapped pages.
        """
        if strides is None or not spec.nbytes:
            extent, strides = spec.nbytes, None
        else:
            steps = zip(spec.shape, strides, strict=True)
            extent = spec.dtype.itemsize + sum((size - 1) * stride for size, stride in steps)
        if not extent:  # nothing can be mapped
            empty = np.empty(spec.shape, spec.dtype)
            empty.flags.writeable = False
            return empty.view(np.memmap)
        skip, descriptor = offset % mmap.ALLOCATIONGRANULARITY, self._open()
        try:
            pages = mmap.mmap(descriptor, skip + extent, access=mmap.ACCESS_READ, offset=offset - skip)
        except ValueError:
            raise self.error('it became shorter after it was opened.') from None
        return np.ndarray.__new__(
            np.memmap, spec.shape, spec.dtype, buffer=pages, offset=skip, strides=strides
        )

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for offset in range(0, self.size, CHUNK):
            digest.update(self.read(offset, min(CHUNK, self.size - offset)))
        return digest.hexdigest()

    def close(self) -> None:
        """Arrays that were taken before stay valid: a mapping outlives its descriptor."""
        self._close()

    def _open(self) -> int:
        """The descriptor."""
        if not self._close.alive:
            raise ValueError(f'{self.path} is closed; read its tensors inside the with block.')
        return self._descriptor


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies: its first element's offset in a file, and its strides in bytes unless contiguous."""

    file: MappedFile
    offset: int
    spec: TensorSpec
    strides: tuple[int, ...] | None = None


class TensorFile(collections.abc.Mapping[str, np.ndarray]):
    """Key -> array of one file, of the shards of one model, or of a folder of models.

    Attributes:
        paths: of every file that it reads.
        kind: 'safetensors', or 'torch' when a pickle is among them.
        specs: key -> TensorSpec, without reading data.
        metadata: of a safetensors header; {} for pickles.
        scalars: of a pickle: leaves that are no tensors, by dotted key ('global_step').
        refused: names of what a pickle wanted imported and did not get: inert placeholders stand in their places.
        wrapper: the entry of the pickle's outermost dict that held the tensors ('state_dict'); '' for none.

    An item is a read-only np.memmap of its own. The files close with `with` or `close`; items stay valid.
    """

    def __init__(
        self,
        files: Sequence[MappedFile],
        places: Mapping[str, Place],
        *,
        kind: Literal['safetensors', 'torch'],
        metadata: Mapping[str, str] | None = None,
        scalars: Mapping[str, int | float | str | bool] | None = None,
        refused: Sequence[str] = (),
        wrapper: str = '',
        root: str | os.PathLike | None = None,
    ):
        self._files = tuple(files)
        self._places = dict(places)
        self.kind = kind
        self.metadata = dict(metadata or {})
        self.scalars = dict(scalars or {})
        self.refused = tuple(refused)
        self.wrapper = wrapper
        self.paths: tuple[pathlib.Path, ...] = tuple(file.path for file in self._files)
        self._root = self.paths[0].parent if root is None else root
        self.specs: Mapping[str, TensorSpec] = {key: place.spec for key, place in self._places.items()}

    def without(self, keys: Collection[str]) -> TensorFile:
        """The mapping without some of its keys; it closes with this one."""
        return TensorFile(
            self._files,
            {key: place for key, place in self._places.items() if key not in keys},
            kind=self.kind,
            metadata=self.metadata,
            scalars=self.scalars,
            refused=self.refused,
            wrapper=self.wrapper,
            root=self._root,
        )

    def __getitem__(self, key: str) -> np.ndarray:
        place = self._places[key]
        return place.file.array(place.offset, place.spec, place.strides)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places  # the mix-in would map the tensor to find out

    def sha256(self) -> dict[str, str]:
        """File name -> hex digest, streamed; names are relative to the first file's folder, or to the opened one."""
        return {os.path.relpath(file.path, self._root): file.sha256() for file in self._files}

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def merged(
    parts: Sequence[tuple[str, TensorFile]],
    beside: Sequence[MappedFile] = (),
    root: str | os.PathLike | None = None,
) -> TensorFile:
    """One mapping of several, each with its prefix ('unet/', or '' for shards); no key may come twice.

    beside: files without tensors that were read, such as an index.
    root: of the names that sha256 gives.
    """
    places, metadata, scalars = {}, {}, {}
    for prefix, part in parts:
        places |= {prefix + key: place for key, place in part._places.items()}
        metadata |= {prefix + key: value for key, value in part.metadata.items()}
        scalars |= {prefix + key: value for key, value in part.scalars.items()}
    return TensorFile(
        [*beside, *(file for _, part in parts for file in part._files)],
        places,
        kind='torch' if any(part.kind == 'torch' for _, part in parts) else 'safetensors',
        metadata=metadata,
        scalars=scalars,
        refused=sorted({name for _, part in parts for name in part.refused}),
        wrapper=next((part.wrapper for _, part in parts if part.wrapper), ''),
        root=root,
    )
