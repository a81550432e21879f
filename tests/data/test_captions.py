"""Templates filled with fields; lists of texts are choices; values that are no texts are refused by name."""

import numpy as np
import pytest

from ldm_jax.data import captions


def test_templates_are_filled():
    fields = {
        'caption': 'a cat',
        'size': 12,
        'tags': ['x', 'y'],
        'meta': {'by': 'me'},
        'ratio': np.float32(0.5),
    }
    template = '{caption}, {size:03} wide, {tags[1]}, by {meta[by]}, {ratio}, {{curly}}'
    assert captions.spell(template, fields) == 'a cat, 012 wide, y, by me, 0.5, {curly}'
    assert captions.spellings(template, fields) == (captions.spell(template, fields),)
    assert captions.needed(template) == {'caption', 'size', 'tags', 'meta', 'ratio'}
    assert captions.spell('', {}) == ''
    assert captions.spell('{caption}', {'caption': ''}) == ''


def test_a_list_of_texts_is_a_choice():
    fields = {'caption': ['a cat', 'a feline'], 'style': ('flat', 'round', 'flat'), 'one': ['alone']}
    assert captions.spell('{caption}', fields) == 'a cat'
    assert captions.spell('{one}', fields, lambda count: 1 / 0) == 'alone'
    assert captions.spell('{caption}, {style}', fields, lambda count: count - 1) == 'a feline, flat'
    assert captions.spell('{caption} or {caption}', fields, lambda count: 1) == 'a feline or a feline'
    assert captions.spellings('{caption}, {style}', fields) == (
        'a cat, flat', 'a cat, round', 'a feline, flat', 'a feline, round',
    )  # fmt: skip


@pytest.mark.parametrize(
    'value',
    [float('nan'), float('inf'), True, {'a': 1}, [], [1, 2], ['a', None], b'a', [['a']], np.array(['a'])],
)
def test_other_values_are_refused_with_field_and_value(value):
    with pytest.raises(ValueError) as raised:
        captions.spell('{caption}', {'caption': value})
    assert str(raised.value).startswith(f'caption is {value!r}; expected a text')


def test_a_value_that_is_not_used_may_be_anything():
    assert captions.spell('{caption}', {'caption': 'a cat', 'score': float('nan')}) == 'a cat'


def test_a_field_that_is_absent_is_a_lookup_error():
    with pytest.raises(LookupError, match='title'):
        captions.spell('{title}', {'caption': 'a cat'})
