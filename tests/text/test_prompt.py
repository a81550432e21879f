"""Prompts of several parts, read as the web UI reads them."""

import re

import numpy as np
import pytest

from ldm_jax.text import prompt


@pytest.mark.parametrize(
    ('text', 'parts'),
    [
        ('a cat :1.2 AND a dog :0.8', [('a cat', 1.2), ('a dog', 0.8)]),
        ('a cat AND a dog', [('a cat', 1.0), ('a dog', 1.0)]),
        ('a cat:2AND a dog', [('a cat:2AND a dog', 1.0)]),
        (
            'a red:blue cat : -.5\nAND\n a dog:1. AND b',
            [('a red:blue cat', -0.5), ('a dog', 1.0), ('b', 1.0)],
        ),
        ('a clock at 12:30', [('a clock at 12:30', 1.0)]),
        ('SAND and LAND', [('SAND and LAND', 1.0)]),
        ('a :x AND b: c', [('a :x', 1.0), ('b: c', 1.0)]),
        ('', [('', 1.0)]),
    ],
)
def test_parts_and_weights(text, parts):
    assert prompt.split(text) == parts


def test_parts_of_a_composition_are_those_of_the_web_ui():
    """Its own patterns (modules/prompt_parser.py)."""
    weight = re.compile(r'^((?:\s|.)*?)(?:\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+)))?\s*$')
    for text in ('a :1.2 AND b :0.8', 'a, b:c AND d : -2', 'x:.5 AND y :+3. AND z', 'a\nb :2 AND c'):
        theirs = [weight.search(part).groups() for part in re.split(r'\bAND\b', text)]
        expected = [(words.strip(), 1.0 if w is None else float(w)) for words, w in theirs]
        assert prompt.split(text) == expected


@pytest.mark.parametrize('text', ['a AND ', 'AND', 'a AND :2 AND b'])
def test_an_empty_part_is_named(text):
    with pytest.raises(ValueError, match='A part of the prompt .* is empty'):
        prompt.split(text)


def test_prompts_of_fewer_parts_repeat_one_without_weight():
    (texts, weights), (others, rest) = prompt.columns(['a', 'b :2 AND c :3'])
    assert texts == ['a', 'b']
    assert others == ['a', 'c']
    np.testing.assert_array_equal([weights, rest], [[1, 2], [0, 3]])
    assert [column for column, _ in prompt.columns(['a', 'b'])] == [['a', 'b']]
