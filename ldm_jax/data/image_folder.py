"""Images in a folder or a zip file: described by a metadata file, captioned by text files, or sorted into classes."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import pathlib
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ldm_jax.data import index, rows, transforms
from ldm_jax.data.corrupt import Corrupt

METADATA = ('metadata.jsonl', 'metadata.csv')


@dataclasses.dataclass(frozen=True)
class Source:
    """Images as dict(image=uint8 [S, S, 3], text=str), with label=int32 [] if asked for.

    With files named metadata.jsonl (a JSON object a line) or metadata.csv, at the top or in folders, their rows are
    the examples, whose 'file_name' says where an image lies from there. Without any, all images are, in the order of
    their names, with the fields file_name, stem, folder (the path of the folder they are in, '' at the top) and
    caption (of x.txt beside x.png).

    Args:
        path: a folder or a zip file.
        image_size: S; the middle square of each image is resized to it, on white where it is transparent. None
            leaves images whole, for crops and buckets.
        text: a format string over a row's fields, such as '{caption}, {style} style' or 'a photo of {folder}'; with
            several of them each image is there once with each; '' for images without texts.
        label: a field that is the class: whole numbers, or names, which are numbered in the order of the alphabet.
        select: field -> allowed values; a row must match them all.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no images; a row lacks a field that text, label or select names; no row is selected.
    """

    path: str
    image_size: int | None = None
    text: str | tuple[str, ...] = '{caption}'
    label: str = ''
    select: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self):
        hint = (
            ''
            if self.table.described
            else 'Captions are of x.txt beside x.png; folders are named by {folder}.'
        )
        rows.check(self, hint=hint)

    @functools.cached_property
    def table(self) -> Table:
        return _open(self.path, {field: tuple(values) for field, values in self.select.items()})

    __len__ = rows.length
    __getitem__ = rows.example
    caption = rows.caption
    name = rows.name
    shape = rows.shape

    @property
    def stamp(self) -> str:
        """Changes when a file does."""
        return self.table.files.stamp


@dataclasses.dataclass(frozen=True)
class Table:
    """The selected rows."""

    files: Files
    entries: list[dict[str, Any]]
    described: bool  # by a metadata file

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, row: int) -> str:
        return self.entries[row]['file_name']

    def columns(self, row: int) -> Collection[str]:
        return [field for field, value in self.entries[row].items() if value is not None]

    def fields(self, row: int) -> rows.Fields:
        fields = {field: value for field, value in self.entries[row].items() if value is not None}
        if not self.described and 'caption' in fields:  # the name of its file so far
            fields['caption'] = self.files.read(fields['caption']).decode(errors='replace').strip()
        return fields

    def read(self, row: int) -> tuple[bytes, rows.Fields]:
        return self.files.read(self.name(row)), self.fields(row)

    def classes(self, field: str) -> list[str] | None:
        if field not in self._classes:
            values = {str(entry[field]) for entry in self.entries if entry.get(field) is not None}
            numbers = all(value.isdecimal() for value in values)
            self._classes[field] = None if numbers else sorted(values)
        return self._classes[field]

    @functools.cached_property
    def _classes(self) -> dict[str, list[str] | None]:
        return {}


@dataclasses.dataclass(frozen=True)
class Files:
    """The files in a folder or a zip file, by their paths in it."""

    path: str

    @functools.cached_property
    def names(self) -> list[str]:
        """All of them but hidden ones, in order."""
        if self._zip:
            found = [entry.filename for entry in self._zip.infolist() if not entry.is_dir()]
        else:
            root = pathlib.Path(self.path)
            found = [path.relative_to(root).as_posix() for path in root.rglob('*') if path.is_file()]
        hidden = ('.', '__')  # macOS leaves .DS_Store and __MACOSX/
        return sorted(n for n in found if not any(part.startswith(hidden) for part in n.split('/')))

    @property
    def stamp(self) -> str:
        """Changes when a file does."""
        return index.stamp([self.path] if self._zip else [f'{self.path}/{name}' for name in self.names])

    def read(self, name: str) -> bytes:
        """Raises Corrupt when the file is not there, or damaged."""
        try:
            return self._zip.read(name) if self._zip else (pathlib.Path(self.path) / name).read_bytes()
        except (KeyError, FileNotFoundError, IsADirectoryError):
            raise Corrupt(name, f'not in {self.path}') from None
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise Corrupt(name, str(error)) from None

    @functools.cached_property
    def _zip(self) -> zipfile.ZipFile | None:
        return zipfile.ZipFile(self.path) if pathlib.Path(self.path).is_file() else None

    def __getstate__(self) -> dict[str, Any]:
        # Opened anew elsewhere.
        return {name: value for name, value in self.__dict__.items() if name != '_zip'}


def _open(path: str, select: Mapping[str, Sequence[Any]]) -> Table:
    if not pathlib.Path(path).exists():
        raise FileNotFoundError(f'No data at {path!r}; give --config.data.path the folder or zip file.')
    try:
        files = Files(path)
        described = [name for name in files.names if pathlib.PurePosixPath(name).name in METADATA]
    except zipfile.BadZipFile:
        raise ValueError(f'{path} is neither a folder nor a zip file.') from None
    entries = (
        [entry for name in described for entry in _described(files, name)] if described else _listed(files)
    )
    for entry in entries:
        if missing := select.keys() - entry.keys():
            raise ValueError(
                f'{path}: row {entry["file_name"]} has no field {sorted(missing)}, which select names; it has '
                f'{sorted(entry)}.'
            )
    chosen = [entry for entry in entries if all(entry[field] in values for field, values in select.items())]
    if entries and not chosen:
        found = {field: sorted({str(entry[field]) for entry in entries})[:20] for field in select}
        raise ValueError(
            f'{path}: none of {len(entries)} rows matches select={dict(select)}; there are {found}.'
        )
    return Table(files, chosen, bool(described))


def _described(files: Files, name: str) -> list[dict[str, Any]]:
    text = files.read(name).decode('utf-8-sig')
    if name.endswith('.csv'):
        entries = list(csv.DictReader(io.StringIO(text)))
    else:
        entries = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    entries.append(dict(json.loads(line)))
                except ValueError as error:
                    raise ValueError(
                        f'{files.path}: line {number} of {name} is no JSON object: {error}.'
                    ) from None
    for number, entry in enumerate(entries, 1):
        if not entry.get('file_name'):
            raise ValueError(
                f"{files.path}: row {number} of {name} has no 'file_name'; it has {sorted(entry)}."
            )
    folder = pathlib.PurePosixPath(name).parent
    return [entry | {'file_name': str(folder / entry['file_name'])} for entry in entries]


def _listed(files: Files) -> list[dict[str, Any]]:
    captions = {name for name in files.names if name.endswith('.txt')}
    entries = []
    for name in files.names:
        path = pathlib.PurePosixPath(name)
        if path.suffix.lower() in transforms.SUFFIXES:
            folder = '' if path.parent == pathlib.PurePosixPath('.') else str(path.parent)
            entry = {'file_name': name, 'stem': path.stem, 'folder': folder}
            if (beside := str(path.with_suffix('.txt'))) in captions:
                entry['caption'] = beside
            entries.append(entry)
    return entries
