"""Metadata files of image folders: rows of metadata.jsonl, a JSON object a line, or of metadata.csv."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from ldm_jax import text_files
from ldm_jax.data import captions

NAMES = ('metadata.jsonl', 'metadata.csv')
LONGEST = 2**31 - 1  # of a csv's fields; Python's own limit is 131,072


@dataclasses.dataclass(frozen=True)
class Row:
    """A row with the place where it stands, such as 'line 3 of metadata.csv'."""

    place: str
    fields: dict[str, Any]


def read(data: bytes, name: str) -> list[Row]:
    """The rows of a metadata file; each has a text 'file_name', relative to the file's folder.

    Args:
        data: of the file.
        name: its path, which says of what kind it is.

    Raises ValueError, with file, line and value, for a file that is no text, a row that is none, and a row whose
    file_name or caption cannot be one. A caption is a text, or a list of texts.
    """
    try:
        text = text_files.decode(data)
    except text_files.NotText as error:
        raise ValueError(f'{name} is {error}.') from None
    rows = []
    for line, fields in (_csv if name.endswith('.csv') else _jsonl)(text, name):
        row = Row(f'line {line} of {name}', fields)
        file_name = fields.get('file_name')
        if not isinstance(file_name, str) or not file_name:
            got = (
                f'is {file_name!r}'
                if file_name is not None
                else f'is not there; the row has {sorted(fields)}'
            )
            raise ValueError(f"{row.place}: 'file_name' {got}. It must be the path of an image.")
        check(row, ['caption'])
        rows.append(row)
    return rows


def check(row: Row, fields: Sequence[str]) -> None:
    """Raises ValueError, with the row's place, for one of the fields that no text can be made of."""
    for field in fields:
        if row.fields.get(field) is not None:
            try:
                captions.options(field, row.fields[field])
            except ValueError as error:
                raise ValueError(f'{row.place}: {error}.') from None


def _jsonl(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text_files.lines(text), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f'line {number} of {name} is no JSON object: {error}.') from None
        if not isinstance(value, dict):
            raise ValueError(f'line {number} of {name} is no JSON object: {_short(line)}.')
        yield number, value


def _csv(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(LONGEST)
    # Strict: a quote that is never closed would swallow the rest of the file.
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    try:
        header = next((row for row in reader if row), [])
        if twice := [field for field in header if header.count(field) > 1]:
            raise ValueError(f'line {reader.line_num} of {name} names the column {twice[0]!r} twice.')
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                hint = ' Put a text that has commas in double quotes.' if len(row) > len(header) else ''
                raise ValueError(
                    f'line {reader.line_num} of {name} has {len(row)} fields, and its header {len(header)} '
                    f'({", ".join(header)}): {_short(",".join(row))}.{hint}'
                )
            yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f'line {reader.line_num} of {name}: {error}.') from None


def _short(text: str) -> str:
    return text if len(text) <= 100 else f'{text[:100]} ...'
