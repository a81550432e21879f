"""Rows of one length from texts of any length: start token, the text's tokens, end token, padding."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Frame(NamedTuple):
    """What is around a text's ids in a row: those that start and end it, and the one that fills it."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int


SHOWN = 200  # characters of a cut text that the warning shows


def check_context_length(context_length: int) -> None:
    """Raises ValueError for a row length that is not an integer or has no room for start and end."""
    if not isinstance(context_length, int) or context_length < 2:
        raise ValueError(
            f'context_length {context_length!r} must be an integer of at least 2, '
            'for the start and the end token alone; CLIP and the LDM BERT have 77.'
        )


def check_text(text: str) -> None:
    """Raises TypeError for a text that is not a str."""
    if isinstance(text, bytes | bytearray):
        raise TypeError(f"A text must be a str; got {text[:40]!r}. Decode it first: text.decode('utf-8').")
    if not isinstance(text, str):
        raise TypeError(f'A text must be a str; got {text!r} of type {type(text).__name__}.')


def listed(texts: str | Sequence[str]) -> list[str]:
    """One text or several as a list.

    Raises:
        TypeError: texts is neither a str nor a sequence, or one of them is not a str.
        ValueError: there is no text.
    """
    if isinstance(texts, str):
        texts = [texts]
    if isinstance(texts, bytes | bytearray) or not isinstance(texts, Sequence):
        raise TypeError(f'Expected a str or a list of str; got {texts!r} of type {type(texts).__name__}.')
    if not texts:
        raise ValueError("Got no text; an empty prompt is [''].")
    for text in texts:
        check_text(text)
    return list(texts)


def shortened(text: str) -> str:
    """A text in quotes as a warning shows it, its end left out where it is long."""
    return repr(text if len(text) <= SHOWN else f'{text[:SHOWN]} ... ({len(text) - SHOWN} more characters)')


def pad_rows(
    texts: str | Sequence[str],
    encode: Callable[[str], list[int]],
    spell: Callable[[list[int]], str],
    *,
    context_length: int,
    start_id: int,
    end_id: int,
    pad_id: int,
) -> np.ndarray:
    """Encodes texts into int32 ids [B, context_length]; B is 1 for a single str.

    A text of more than context_length - 2 tokens loses its last ones, never the end token, and a
    warning names the words that were cut.

    Args:
        texts: one text or a sequence of texts; an empty text is a start and an end token.
        encode: the ids of a text, without start and end.
        spell: the text of ids, for the warning.

    Raises:
        TypeError: texts is neither a str nor a sequence, or one of them is not a str.
        ValueError: there is no text.
    """
    texts = listed(texts)
    room = context_length - 2
    rows = np.full((len(texts), context_length), pad_id, np.int32)
    for row, text in zip(rows, texts, strict=True):
        ids = encode(text)
        if len(ids) > room:
            # Level 3 is the line that called the tokenizer.
            warnings.warn(
                f'Text too long: {room} of its {len(ids)} tokens fit into context_length '
                f'{context_length}; left out: {shortened(spell(ids[room:]))}.',
                stacklevel=3,
            )
            ids = ids[:room]
        row[: len(ids) + 2] = [start_id, *ids, end_id]
    return rows


def unpad_row(row: Sequence[int] | np.ndarray, *, start_id: int, end_id: int, vocab_size: int) -> list[int]:
    """The text's own ids of a row [L]: without the start token, and only what precedes the first end token.

    Raises:
        ValueError: row is not a flat list of integers below vocab_size.
    """
    array = np.asarray(row)
    if array.ndim != 1 or (array.size and array.dtype.kind not in 'iu'):
        raise ValueError(
            f'Expected one row of integer ids, of shape [L]; got shape {list(array.shape)} of {array.dtype}. '
            'Decode a batch row by row.'
        )
    strange = array[(array < 0) | (array >= vocab_size)]
    if strange.size:
        raise ValueError(f'No id {strange[0]} in the vocabulary; it has 0 .. {vocab_size - 1}.')
    ids = array.tolist()
    if end_id in ids:
        ids = ids[: ids.index(end_id)]
    return [i for i in ids if i != start_id]
