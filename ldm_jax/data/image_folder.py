"""Images in a folder or a zip file: described by a metadata file, captioned by text files, or sorted into classes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import pathlib
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ldm_jax import text_files
from ldm_jax.data import captions, folders, metadata, rows, transforms
from ldm_jax.data.corrupt import Corrupt
from ldm_jax.data.files import Files

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Source:
    """Images as dict(image=uint8 [S, S, 3], text=str), with label=int32 [] if asked for.

    With files named metadata.jsonl (a JSON object a line) or metadata.csv, at the top or in folders, their rows are
    the examples, whose 'file_name' says where an image lies from there. Without any, all images are, in the order of
    their names, with the fields file_name, stem, folder (the path of the folder they are in, '' at the top) and
    caption (of x.txt beside x.png). Files that are left out are counted and named once, by a warning.

    Args:
        path: a folder or a zip file.
        image_size: S; the middle square of each image is resized to it, on white where it is transparent. None
            leaves images whole, for crops and buckets.
        text: a format string over a row's fields, such as '{caption}, {style} style' or 'a photo of {folder}'; with
            several of them each image is there once with each; '' for images without texts. A field may be a list
            of texts: by index the first is taken, in training one is drawn for each showing, and 'text' says which.
        label: a field that is the class: whole numbers, or names, which are numbered in the order of the alphabet.
        select: field -> allowed values; a row must match them all.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no images; a row that cannot be read, or lacks a field that text, label or select names, or has
            one there that is no text; no row is selected.
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
        self.table.check(rows.texts(self))

    @functools.cached_property
    def table(self) -> Table:
        return _open(self.path, {field: tuple(values) for field, values in self.select.items()})

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
        return self.table.files.stamp


@dataclasses.dataclass(frozen=True)
class Table:
    """The selected rows."""

    files: Files
    entries: list[metadata.Row]
    described: bool  # by a metadata file

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, row: int) -> str:
        return self.entries[row].fields['file_name']

    def columns(self, row: int) -> Collection[str]:
        return _filled(self.entries[row]).keys()

    def fields(self, row: int) -> rows.Fields:
        fields = _filled(self.entries[row])
        if not self.described and 'caption' in fields:  # the name of its file so far
            fields['caption'] = self._text(fields['caption'])
        return fields

    def read(self, row: int) -> tuple[bytes, rows.Fields]:
        return self.files.read(self.name(row)), self.fields(row)

    def classes(self, field: str) -> list[str] | None:
        if field not in self._classes:
            values = {str(fields[field]) for fields in map(_filled, self.entries) if field in fields}
            numbers = all(value.isdecimal() for value in values)
            self._classes[field] = None if numbers else sorted(values)
        return self._classes[field]

    def check(self, templates: Iterable[str]) -> None:
        """Raises ValueError, with the row's place, when a template meets a value that is no text."""
        for entry in self.entries if self.described else ():
            for template in templates:
                try:
                    with contextlib.suppress(LookupError, AttributeError, TypeError):  # rows.check's
                        captions.spell(template, _filled(entry))
                except ValueError as error:
                    raise ValueError(f'{self.files.path}: {entry.place}: {error}.') from None

    @functools.cached_property
    def _classes(self) -> dict[str, list[str] | None]:
        return {}

    def _text(self, name: str) -> str:
        try:
            return text_files.decode(self.files.read(name)).strip()
        except text_files.NotText as error:
            raise Corrupt(name, str(error)) from None


def _filled(entry: metadata.Row) -> dict[str, Any]:
    return {field: value for field, value in entry.fields.items() if value is not None}


def _open(path: str, select: Mapping[str, Sequence[Any]]) -> Table:
    if not pathlib.Path(path).exists():
        raise FileNotFoundError(f'No data at {path!r}; give --config.data.path the folder or zip file.')
    try:
        files = Files(path)
        described = [name for name in files.names if pathlib.PurePosixPath(name).name in metadata.NAMES]
    except zipfile.BadZipFile:
        raise ValueError(f'{path} is neither a folder nor a zip file.') from None
    entries = [row for name in described for row in _described(files, name)] if described else _listed(files)
    if left_out := files.left_out | _unused(files, described, entries):
        log.warning('%s: left out %s.', path, folders.counted(left_out))
    for entry in entries:
        if missing := select.keys() - entry.fields.keys():
            raise ValueError(
                f'{path}: row {entry.fields["file_name"]} has no field {sorted(missing)}, which select names; it has '
                f'{sorted(entry.fields)}.'
            )
    chosen = [row for row in entries if all(row.fields[field] in values for field, values in select.items())]
    if entries and not chosen:
        found = {field: sorted({str(entry.fields[field]) for entry in entries})[:20] for field in select}
        raise ValueError(
            f'{path}: none of {len(entries)} rows matches select={dict(select)}; there are {found}.'
        )
    return Table(files, chosen, bool(described))


def _described(files: Files, name: str) -> list[metadata.Row]:
    """The rows of a metadata file, the images' paths from the top."""
    try:
        found = metadata.read(files.read(name), name)
    except ValueError as error:
        raise ValueError(f'{files.path}: {error}') from None
    folder = pathlib.PurePosixPath(name).parent
    return [
        metadata.Row(row.place, row.fields | {'file_name': str(folder / row.fields['file_name'])})
        for row in found
    ]


def _listed(files: Files) -> list[metadata.Row]:
    """A row for each image."""
    texts = {name for name in files.names if _is_text(name)}
    entries = []
    for name in filter(_is_image, files.names):
        path = pathlib.PurePosixPath(name)
        folder = '' if path.parent == pathlib.PurePosixPath('.') else str(path.parent)
        fields = {'file_name': name, 'stem': path.stem, 'folder': folder}
        if (beside := str(path.with_suffix('.txt'))) in texts:
            fields['caption'] = beside
        entries.append(metadata.Row(name, fields))
    return entries


def _unused(files: Files, described: Sequence[str], entries: Sequence[metadata.Row]) -> dict[str, list[str]]:
    """Reason -> files that no row is made of."""
    used = {*described} | {value for entry in entries for value in _paths(entry, bool(described))}
    found: dict[str, list[str]] = {}
    for name in files.names:
        if name not in used:
            if _is_image(name):
                reason = 'images without a row of metadata'
            elif _is_text(name):
                reason = 'texts without an image'
            else:
                reason = 'files that are no images by their suffix'
            found.setdefault(reason, []).append(name)
    return found


def _paths(entry: metadata.Row, described: bool) -> list[str]:
    """The files that a row is made of."""
    fields = entry.fields
    return [fields['file_name'], *([fields['caption']] if not described and 'caption' in fields else [])]


def _is_image(name: str) -> bool:
    return pathlib.PurePosixPath(name).suffix.lower() in transforms.SUFFIXES


def _is_text(name: str) -> bool:
    return name.endswith('.txt')
