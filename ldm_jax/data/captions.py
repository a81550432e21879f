"""Texts of examples: a template such as '{caption}, {style} style' filled with the fields of a row.

A field that holds a list of texts is a choice: an example read by index has the first, each showing of it in training
one that is drawn.
"""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Fields = Mapping[str, Any]
Pick = Callable[[int], int]  # the number of choices -> the one that is taken


def options(field: str, value: Any) -> tuple[Any, ...]:
    """The values that a field offers a template: its text or number, or the texts of its list.

    Raises ValueError, with field and value, for anything else: an empty list, NaN, true, a mapping, bytes.
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if number and math.isfinite(value):
        return (value,)
    raise ValueError(f'{field} is {value!r}; expected a text, or a list of texts to draw from')


def spell(template: str, fields: Fields, pick: Pick = lambda count: 0) -> str:
    """The text of a template, the first of each choice by default.

    Raises LookupError, AttributeError or TypeError for a field that is not there, ValueError as `options`.
    """
    return _Speller(pick).format(template, **fields)


def spellings(template: str, fields: Fields) -> tuple[str, ...]:
    """Every text that `spell` may give, each once. Raises as `spell`."""
    counts: list[int] = []
    spell(template, fields, _noted(counts))
    found = {}
    for picks in itertools.product(*map(range, counts)):
        found[spell(template, fields, _in_turn(picks))] = None
    return tuple(found)


def _noted(counts: list[int]) -> Pick:
    def first(count: int) -> int:
        counts.append(count)
        return 0

    return first


def _in_turn(picks: Iterable[int]) -> Pick:
    left = iter(picks)
    return lambda count: next(left)


def needed(template: str) -> set[str]:
    """The fields that a template names."""
    parsed = (field for _, field, _, _ in string.Formatter().parse(template) if field is not None)
    return {field.partition('.')[0].partition('[')[0] for field in parsed}


class _Speller(string.Formatter):
    """A formatter that takes one of each choice, the same one wherever the field stands."""

    def __init__(self, pick: Pick):
        self._pick, self._picked = pick, {}

    def get_field(self, field_name, args, kwargs):
        value, first = super().get_field(field_name, args, kwargs)
        offered = options(field_name, value)
        if len(offered) > 1 and field_name not in self._picked:
            self._picked[field_name] = self._pick(len(offered))
        return offered[self._picked.get(field_name, 0)], first
