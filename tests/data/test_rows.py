"""Texts and labels out of a row's fields."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from ldm_jax.data import rows
from ldm_jax.data.corrupt import Corrupt

PIXELS = np.zeros((4, 6, 3), np.uint8)


@dataclasses.dataclass
class Table:
    entries: list[Any]

    def __len__(self):
        return len(self.entries)

    def name(self, row):
        return f'row {row}'

    def columns(self, row):
        return self.fields(row).keys()

    def fields(self, row):
        if self.entries[row] is None:
            raise Corrupt(self.name(row), 'broken')
        return self.entries[row]

    def read(self, row):
        return PIXELS, self.fields(row)

    def classes(self, field):
        return ['cat', 'dog'] if field == 'kind' else None


@dataclasses.dataclass
class Source:
    entries: list[Any]
    text: Any = '{caption}'
    label: str = ''
    image_size: int | None = None
    path: str = 'somewhere'

    @property
    def table(self):
        return Table(self.entries)


def test_texts_reach_into_fields_and_each_is_an_example():
    source = Source(
        [{'a': 'x', 'b': {'c': ['y', 'z']}}, {'a': 'u', 'b': {'c': ['v', 'w']}}],
        ('{a}: {b[c][1]}', 'just {a}'),
    )
    assert rows.needed(source) == {'a', 'b'}
    assert rows.length(source) == 4
    assert [rows.example(source, i)['text'] for i in range(4)] == ['x: z', 'just x', 'u: w', 'just u']
    assert rows.name(source, 3) == 'row 1'
    assert rows.shape(source, 3) == (4, 6)


def test_a_text_that_a_row_cannot_give_is_corrupt_and_never_half_a_text():
    source = Source([{'b': {}}, {'b': 'text'}, {}], '{b[c]}')
    for i in range(3):
        with pytest.raises(Corrupt, match=f'row {i}: no field .* for the text'):
            rows.caption(source, i)


@pytest.mark.parametrize(
    ('label', 'value', 'expected'),
    [('kind', 'dog', 1), ('kind', 1, 1), ('n', 5, 5), ('n', '7', 7), ('n', 3.0, 3), ('n', np.int64(2), 2)],
)
def test_labels_are_numbers_or_the_numbers_of_names(label, value, expected):
    found = rows.example(Source([{label: value}], text='', label=label), 0)['label']
    assert found == expected
    assert found.dtype == np.int32


@pytest.mark.parametrize('value', ['bird', 2.5, None, [1], 2**40])
def test_other_labels_are_corrupt(value):
    with pytest.raises(Corrupt, match='kind is .*whole number'):
        rows.example(Source([{'kind': value}], text='', label='kind'), 0)


def test_missing_fields_are_named_at_once_with_how_many_rows_lack_them():
    entries = [{'caption': 'x'}, {'words': 'y'}, {'words': 'z'}]
    with pytest.raises(
        ValueError,
        match=r"somewhere: 2 of 3 rows have no field 'caption'; the first, row 1.*\['words'\].*why",
    ):
        rows.check(Source(entries), hint='why')
    rows.check(Source(entries), first=3)
    with pytest.raises(ValueError, match="no field 'title'"):
        rows.check(Source(entries, '{title}'), first=2)
    rows.check(Source([None, {'caption': 'x'}]), first=5)
    with pytest.raises(ValueError, match='none of its first rows can be read: row 0: broken'):
        rows.check(Source([None]), first=5)
