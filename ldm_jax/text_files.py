r"""Text files: bytes to text, text to lines.

A text is UTF-8, with or without its mark, or UTF-16 with its mark; everything else is refused, since a guess that is
wrong looks like text all the same. A line ends at '\n' or '\r\n' alone: U+2028, U+0085 and form feeds are characters of
a line, although str.splitlines cuts there.
"""

from __future__ import annotations

import codecs
import os
import pathlib


class NotText(ValueError):
    """Bytes are no text in a known encoding."""


def decode(data: bytes) -> str:
    """Text of the bytes of a file, without its mark. Raises NotText."""
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode('utf-16' if marked else 'utf-8-sig')
    except UnicodeDecodeError as error:
        name = 'UTF-16' if marked else 'UTF-8'
        bad = data[error.start : error.start + 4].hex(' ')
        raise NotText(f'not {name}: {error.reason} at byte {error.start} ({bad}). Save it as UTF-8') from None
    if '\0' in text:  # what UTF-16 without its mark, UTF-32 and most files that are no text have
        raise NotText(f'not UTF-8: a NUL at character {text.index(chr(0))}. Save it as UTF-8')
    return text


def lines(text: str) -> list[str]:
    """The lines of a text, without their ends; one that ends the text has no empty line behind it."""
    found = text.split('\n')
    if not found[-1]:
        found.pop()
    return [line.removesuffix('\r') for line in found]


def read(path: str | os.PathLike) -> str:
    """The text of a file. Raises OSError, or NotText that names the file."""
    data = pathlib.Path(path).read_bytes()
    try:
        return decode(data)
    except NotText as error:
        raise NotText(f'{os.fspath(path)} is {error}.') from None
