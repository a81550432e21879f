"""Folders of Hugging Face's `datasets`: what save_to_disk writes (Arrow), and Parquet files as on the hub."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Collection
from typing import Any

from ldm_jax.data import arrow_files, index, rows
from ldm_jax.data.corrupt import Corrupt


@dataclasses.dataclass(frozen=True)
class Source:
    """Rows of Arrow or Parquet files as dict(image=uint8 [S, S, 3], text=str), with label=int32 [] if asked for.

    Arrow files are mapped into memory and read row by row. Parquet has no access by row: each such file is rewritten
    once as Arrow in the cache folder (LDM_JAX_CACHE), as `datasets` does.

    Args:
        path: a folder that `save_to_disk` wrote, a folder of .parquet or .arrow files, a pattern, or several.
        image_size, text, label: as for image_folder. Columns are the fields; a class stands for its name in text and
            for its number in label. Nested columns are given as '{captions[0]}' or '{meta[title]}'.
        image: the column of images: encoded bytes, or a struct of bytes and path; by default the only one of
            `datasets`' type Image, or the one named image, jpg, png, webp or img.
        split: of a folder with several: a part of save_to_disk, or the files named split-*.parquet or in split/;
            a folder with one, or none, ignores it.

    Raises:
        FileNotFoundError: no such files, or no such split.
        ImportError: pyarrow is not installed.
        ValueError: no column of images; text or label names a column that is not there.
    """

    path: str | tuple[str, ...]
    image_size: int | None = None
    text: str | tuple[str, ...] = '{caption}'
    label: str = ''
    image: str = ''
    split: str = 'train'

    def __post_init__(self):
        if self.image and self.image not in self.table.schema.names:
            raise ValueError(f'{self.path} has no column {self.image!r}; have {self.table.schema.names}.')
        rows.check(self, 100, f'The columns are {self.table.schema.names}.')

    @functools.cached_property
    def table(self) -> Table:
        return Table(tuple(arrow_files.files(self.path, self.split)), self.image)

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
    """Rows of Arrow files with one schema."""

    paths: tuple[str, ...]
    asked: str = ''  # the column that was asked for

    @functools.cached_property
    def _batches(self) -> list[Any]:
        """The record batches of all files, mapped into memory."""
        return [batch for path in self.paths for batch in arrow_files.record_batches(path)]

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [0, *itertools.accumulate(batch.num_rows for batch in self._batches)]

    @functools.cached_property
    def schema(self) -> Any:
        return arrow_files.schema(self.paths[0])

    @functools.cached_property
    def features(self) -> dict[str, Any]:
        """Types of the columns as `datasets` notes them; empty for files of other origin."""
        noted = (self.schema.metadata or {}).get(b'huggingface')
        return json.loads(noted)['info']['features'] if noted else {}

    @functools.cached_property
    def image(self) -> str:
        """The column of images. Raises ValueError when it is not clear which one."""
        if self.asked:
            return self.asked
        typed = [name for name, feature in self.features.items() if _is(feature, 'Image')]
        usual = [name for name in ('image', 'jpg', 'png', 'webp', 'img') if name in self.schema.names]
        if len(typed) == 1 or usual:
            return typed[0] if len(typed) == 1 else usual[0]
        raise ValueError(
            f'{self.paths[0]}: which column holds the images? Name it by image=...; have {self.schema.names}.'
        )

    def __len__(self) -> int:
        return self._starts[-1]

    def name(self, row: int) -> str:
        return f'row {row} of {pathlib.Path(self.paths[0]).parent}'

    def columns(self, row: int) -> Collection[str]:
        return self.fields(row).keys()

    def fields(self, row: int) -> rows.Fields:
        found = {name: self._value(row, name) for name in self.schema.names if name not in self._images}
        for name, value in found.items():
            names = self.classes(name)
            if names is not None and value is not None:
                found[name] = names[value] if 0 <= value < len(names) else None  # -1 is `datasets`' unknown
        return {name: value for name, value in found.items() if value is not None}

    def read(self, row: int) -> tuple[bytes, rows.Fields]:
        value = self._value(row, self.image)
        data = value.get('bytes') if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value.get('path'):
            try:
                data = (pathlib.Path(self.paths[0]).parent / value['path']).read_bytes()
            except OSError as error:
                raise Corrupt(self.name(row), f'holds only the path of its image, and {error}') from None
        if not isinstance(data, bytes):
            raise Corrupt(self.name(row), f'{self.image} holds {type(data).__name__} and no encoded image')
        return data, self.fields(row)

    def classes(self, field: str) -> list[str] | None:
        feature = self.features.get(field)
        return feature['names'] if _is(feature, 'ClassLabel') else None

    @functools.cached_property
    def _images(self) -> set[str]:
        return {self.image} | {name for name, feature in self.features.items() if _is(feature, 'Image')}

    def _value(self, row: int, column: str) -> Any:
        part = bisect.bisect_right(self._starts, row) - 1
        return self._batches[part].column(column)[row - self._starts[part]].as_py()

    def __getstate__(self) -> dict[str, Any]:
        return {'paths': self.paths, 'asked': self.asked}  # the rest is mapped memory


def _is(feature: Any, kind: str) -> bool:
    return isinstance(feature, dict) and feature.get('_type') == kind
