"""Weights of words as A1111's web UI writes them: '(word:1.3)', '((word))', '[word]', and BREAK.

A pair of round brackets multiplies by 1.1, or by the number behind its last colon; a pair of square ones divides by
1.1; pairs multiply each other, and one that is never closed acts to the end. A backslash before a bracket makes it a
letter. BREAK in capitals, outside of brackets, begins a new chunk of the text.

Ref: AUTOMATIC1111/stable-diffusion-webui 1.10, modules/prompt_parser.py, parse_prompt_attention.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

ROUND, SQUARE = 1.1, 1 / 1.1
# A multiplication for each piece and each bracket around it is quadratic in nested brackets: so many for a letter are
# plenty for any prompt, and keep the time linear.
MULTIPLICATIONS = 200


class Fragment(NamedTuple):
    """A part of a text and its weight; a border between chunks is BREAK with the weight -1."""

    text: str
    weight: float


BREAK = Fragment('BREAK', -1)

_BREAK = re.compile(r'\s*\bBREAK\b\s*')
_LETTERS = r'\\[()\[\]\\]|\\|\(|\[|{number}|\)|]|[^\\()\[\]:]+|:'
_TOKENS = re.compile(_LETTERS.format(number=r':\s*([+-]?[.\d]+)\s*\)'))
_LPW_TOKENS = re.compile(_LETTERS.format(number=r':([+-]?[.\d]+)\)'))


def fragments(text: str, *, lpw: bool = False) -> list[Fragment]:
    """A text as fragments with their weights, at least one; neighbours of one weight are one.

    lpw: as diffusers' pipeline lpw_stable_diffusion reads them: no BREAK, and no spaces around a number.

    Raises ValueError for a weight of digits and points that is no number, '(a:1.2.3)', and for more brackets around
    more pieces than anybody can mean.
    """
    texts: list[str] = []
    weights: list[float] = []
    opened: dict[str, list[int]] = {'(': [], '[': []}
    left = MULTIPLICATIONS * (len(text) + 10)

    def multiply(start: int, factor: float) -> None:
        nonlocal left
        left -= len(weights) - start
        if left < 0:
            raise ValueError(
                f'The brackets of the prompt {text[:40]!r}... are nested around too many pieces of text: write fewer.'
            )
        for i in range(start, len(weights)):
            weights[i] *= factor

    def add(piece: str, weight: float = 1.0) -> None:
        texts.append(piece)
        weights.append(weight)

    for match in (_LPW_TOKENS if lpw else _TOKENS).finditer(text):
        token, number = match[0], match[1]
        if token.startswith('\\'):
            add(token[1:])
        elif token in opened:
            opened[token].append(len(weights))
        elif number is not None and opened['(']:
            multiply(opened['('].pop(), _number(number, text))
        elif token == ')' and opened['(']:
            multiply(opened['('].pop(), ROUND)
        elif token == ']' and opened['[']:
            multiply(opened['['].pop(), SQUARE)
        else:
            first, *others = [token] if lpw else _BREAK.split(token)
            add(first)
            for piece in others:
                add(*BREAK)
                add(piece)
    for bracket, factor in (('(', ROUND), ('[', SQUARE)):
        for start in opened[bracket]:
            multiply(start, factor)
    return merged(map(Fragment, texts, weights)) or [Fragment('', 1.0)]


def merged(found) -> list[Fragment]:
    """Fragments with neighbours of one weight put together."""
    groups: list[tuple[list[str], float]] = []
    for text, weight in found:
        if groups and groups[-1][1] == weight:
            groups[-1][0].append(text)
        else:
            groups.append(([text], weight))
    return [Fragment(''.join(texts), weight) for texts, weight in groups]


def _number(number: str, text: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise ValueError(
            f'The weight {number!r} in the prompt {text[:80]!r} is no number: write (word:1.3), or \\( for a bracket.'
        ) from None


def is_plain(found: Sequence[Fragment]) -> bool:
    """Whether all words count alike and stand in one chunk or follow each other."""
    return len(found) == 1 and found[0].weight == 1
