"""ArrayRecord files, whose rows say what they hold (packing.py)."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from ldm_jax import text_files
from ldm_jax.atomic import atomic_write
from ldm_jax.data import index, packing, rows, transforms
from ldm_jax.data.corrupt import Corrupt

FIRST = 100  # rows that are looked at when a source is built
SUFFIXES = ('.array_record', '.arrayrecord')


@dataclasses.dataclass(frozen=True)
class Source:
    """Rows of ArrayRecord files as dict(image=uint8 [S, S, 3], text=str), with label=int32 [] if asked for.

    Args:
        path: a file, a folder of them, a pattern, or several.
        image_size, text, label: as for image_folder; a label is a whole number.
        image: the field of images, encoded or as uint8 arrays [H, W, 1 or 3 or 4].
        key: a field that names a row in messages; its number by default.

    Raises:
        FileNotFoundError: no such files.
        ImportError: array_record is not installed.
        ValueError: not ArrayRecord; the first row lacks a field.
    """

    path: str | tuple[str, ...]
    image_size: int | None = None
    text: str | tuple[str, ...] = '{caption}'
    label: str = ''
    image: str = 'image'
    key: str = ''

    def __post_init__(self):
        rows.check(self, FIRST)
        have = set()
        for row in range(min(FIRST, len(self.table))):
            with contextlib.suppress(Corrupt):
                have |= self.table.row(row).keys()
        if self.image not in have:
            raise ValueError(f'{self.path}: no row has the field image={self.image!r}; have {sorted(have)}.')

    @functools.cached_property
    def table(self) -> Table:
        return Table(tuple(index.files(self.path, SUFFIXES)), self.image, self.key)

    __len__ = rows.length
    __getitem__ = rows.example
    view = rows.view
    caption = rows.caption
    captions = rows.all_captions
    name = rows.name
    shape = rows.shape

    @property
    def stamp(self) -> str:
        """Changes when a file does."""
        return index.stamp(self.table.paths)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of ArrayRecord files."""

    paths: tuple[str, ...]
    image: str = 'image'
    key: str = ''

    @functools.cached_property
    def _records(self) -> Any:
        return records(self.paths)

    def row(self, number: int) -> dict[str, Any]:
        """All fields of a row that are not empty. Raises Corrupt."""
        return unpacked(self._records, number, self.paths[0])

    def __len__(self) -> int:
        return len(self._records)

    def name(self, row: int) -> str:
        if self.key:
            with contextlib.suppress(Corrupt):
                return str(_text(self.row(row).get(self.key, row)))
        return f'row {row} of {pathlib.Path(self.paths[0]).parent}'

    def columns(self, row: int) -> Collection[str]:
        return self.fields(row).keys()

    def fields(self, row: int) -> rows.Fields:
        return self._fields(self.row(row))

    def read(self, row: int) -> tuple[transforms.Encoded, rows.Fields]:
        found = self.row(row)
        data = found.get(self.image)
        if not isinstance(data, bytes | np.ndarray):
            raise Corrupt(self.name(row), f'{self.image} holds {type(data).__name__} and no image')
        return data, self._fields(found)

    def classes(self, field: str) -> None:
        return None

    def _fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _text(value) for name, value in row.items() if name != self.image}


def records(paths: tuple[str, ...]) -> Any:
    """The rows of ArrayRecord files as bytes, by number."""
    try:
        from array_record.python import array_record_data_source
    except ImportError:
        raise ImportError("ArrayRecord files need array_record: pip install 'ldm_jax[train]'.") from None
    try:
        return array_record_data_source.ArrayRecordDataSource(list(paths))
    except (ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f'{paths[0]} and others are no ArrayRecord files, or cut off: {error}.') from None


def unpacked(source: Any, number: int, path: str) -> dict[str, Any]:
    """Row `number` of records(paths), without empty fields. Raises Corrupt."""
    try:
        row = packing.unpack(source[number])
    except (ValueError, RuntimeError, IndexError) as error:
        raise Corrupt(f'row {number} of {pathlib.Path(path).parent}', str(error).partition('\n')[0]) from None
    return {name: value for name, value in row.items() if value is not None}


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[Any]:
    """A function that takes rows (mappings, see packing.py), which are a file at the path when the block ends well."""
    from array_record.python.array_record_module import ArrayRecordWriter

    with atomic_write(path, alone=True, sync=True) as partial:
        writer = ArrayRecordWriter(str(partial), 'group_size:1')  # one row a chunk: made for random access
        try:
            yield lambda row: writer.write(packing.pack(row))
        finally:
            writer.close()


def _text(value: Any) -> Any:
    """Text that was stored as bytes, as in a tf.train.Example; other bytes as they are."""
    if isinstance(value, bytes):
        try:
            return text_files.decode(value)
        except text_files.NotText:
            return value
    return [_text(item) for item in value] if isinstance(value, list) else value
