"""Rows with fields and an image each: the methods that sources of files share, however rows are stored.

A source of this kind has the fields `path`, `image_size`, `text` and `label`, and a `table` of its rows; the
functions here are its methods.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ldm_jax.data import captions, transforms
from ldm_jax.data.corrupt import Corrupt

Fields = Mapping[str, Any]


class Table(Protocol):
    """Rows as they are stored."""

    def __len__(self) -> int: ...

    def name(self, row: int) -> str: ...  # for messages, and to find it again

    def columns(self, row: int) -> Collection[str]: ...  # the names of its fields

    def fields(self, row: int) -> Fields: ...  # all but the image; those that are empty are absent

    def read(self, row: int) -> tuple[transforms.Encoded, Fields]: ...  # image and fields; raises Corrupt

    def classes(
        self, field: str
    ) -> Sequence[str] | None: ...  # the names that a field's values number, if any


class TableSource(Protocol):
    """A source over a table."""

    path: str
    image_size: int | None
    text: str | tuple[str, ...]
    label: str
    table: Table


def texts(source: TableSource) -> tuple[str, ...]:
    """The templates; each image is there once with each."""
    return (source.text,) if isinstance(source.text, str) else tuple(source.text)


def length(source: TableSource) -> int:
    """Number of examples."""
    return len(source.table) * len(texts(source))


def name(source: TableSource, i: int) -> str:
    """Name of the row of example i."""
    return source.table.name(i // len(texts(source)))


def caption(source: TableSource, i: int) -> str:
    """The text of example i, without decoding its image. Raises Corrupt when none can be made of its row."""
    return _spell(source, i, source.table.fields(i // len(texts(source))))


def all_captions(source: TableSource, i: int) -> tuple[str, ...]:
    """All texts that showings of example i may have. Raises Corrupt when none can be made of its row."""
    return _spelled(source, i, source.table.fields(i // len(texts(source))), captions.spellings)


def example(source: TableSource, i: int) -> dict[str, Any]:
    """Example i: 'image' uint8 [S, S, 3] or its own size, 'text', and 'label' int32 [] where one is asked for."""
    return _example(source, i, _first)


def view(source: TableSource, i: int, rng: np.random.Generator) -> dict[str, Any]:
    """Example i with a text that is drawn, where a field of it holds a list of texts."""
    # From a stream of its own, so that crops are the same with one caption and with several.
    return _example(source, i, lambda count: int(rng.spawn(1)[0].integers(count)))


def shape(source: TableSource, i: int) -> tuple[int, int]:
    """(height, width) of example i's image as `example` gives it, from its header alone. Raises Corrupt."""
    if source.image_size is not None:
        return source.image_size, source.image_size
    return transforms.dimensions(source.table.read(i // len(texts(source)))[0], name(source, i))


def needed(source: TableSource) -> set[str]:
    """The fields that text and label name."""
    found = {field for text in texts(source) for field in captions.needed(text)}
    return found | ({source.label} if source.label else set())


def check(source: TableSource, first: int | None = None, hint: str = '') -> None:
    """Raises ValueError when a source cannot work: no rows, or none of what text and label name.

    Args:
        first: one of so many rows must have the fields, where looking at all is too long; by default all must.
        hint: where the fields come from.
    """
    if source.image_size is not None and source.image_size < 1:
        raise ValueError(
            f'image_size must be at least 1, or None for the images as they are; got {source.image_size}.'
        )
    table, wanted = source.table, needed(source)
    if not len(table):
        raise ValueError(f'{source.path} holds no images.')
    lacking, failure = [], None
    for row in range(len(table) if first is None else min(first, len(table))):
        try:
            have = set(table.columns(row))
        except Corrupt as error:  # one of those that will be skipped, unless all are
            failure = error
            continue
        if wanted <= have and first is not None:
            return
        if not wanted <= have:
            lacking.append((row, have))
    if lacking:
        row, have = lacking[0]
        absent = ' or '.join(map(repr, sorted(wanted - have)))
        raise ValueError(
            f'{source.path}: {len(lacking)} of {len(table)} rows have no field {absent}; the first, '
            f'{table.name(row)}, has {sorted(have)}. text is {source.text!r}, label {source.label!r}; '
            f"text='' takes images alone. {hint}".rstrip()
        )
    if first is not None:
        raise ValueError(f'{source.path}: none of its first rows can be read: {failure}.')


def _within(source: TableSource, i: int) -> int:
    if not 0 <= i < length(source):
        raise IndexError(f'{source.path} has examples 0 .. {length(source) - 1}; got {i}.')
    return i


def _example(source: TableSource, i: int, pick: captions.Pick) -> dict[str, Any]:
    data, fields = source.table.read(_within(source, i) // len(texts(source)))
    found = {'text': _spell(source, i, fields, pick)}
    if source.label:
        found['label'] = _number(source, fields, i)
    image = transforms.decode(data, name(source, i))
    size = source.image_size
    return {'image': np.asarray(image) if size is None else transforms.square(image, size), **found}


def _first(count: int) -> int:
    return 0


def _spell(source: TableSource, i: int, fields: Fields, pick: captions.Pick = _first) -> str:
    return _spelled(source, i, fields, functools.partial(captions.spell, pick=pick))


def _spelled(source: TableSource, i: int, fields: Fields, spell: Callable[[str, Fields], Any]) -> Any:
    template = texts(source)[i % len(texts(source))]
    try:
        return spell(template, fields)
    except (LookupError, AttributeError, TypeError) as error:
        raise Corrupt(
            name(source, i), f'no field {error} for the text {template!r}; has {sorted(fields)}'
        ) from None
    except ValueError as error:  # a value, or a format that does not suit it
        raise Corrupt(name(source, i), f'{error} (for the text {template!r})') from None


def _number(source: TableSource, fields: Fields, i: int) -> np.int32:
    value, classes = fields.get(source.label), source.table.classes(source.label)
    if classes is not None and value in classes:
        return np.int32(classes.index(value))
    try:
        if np.ndim(value) or (isinstance(value, float) and value != int(value)):
            raise ValueError
        return np.int32(value)
    except (TypeError, ValueError, OverflowError):
        raise Corrupt(
            name(source, i), f'{source.label} is {value!r}, and a label must be a whole number'
        ) from None
