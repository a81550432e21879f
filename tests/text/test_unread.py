"""Marks that would be read as plain text, and words without a vector, are found by name."""

import numpy as np
import pytest

from ldm_jax.text import clip, unread


@pytest.mark.parametrize(
    ('prompt', 'found'),
    [
        ('a (red:1.3) apple', ('(red:1.3)',)),
        ('a (red apple: .5 )', ('(red apple: .5 )',)),
        ('a (red)1.3 apple', ('(red)1.3',)),
        ('a ((red)) apple', ('((red))',)),
        ('an (((apple)))', ('((apple))',)),
        ('an [apple]', ('[apple]',)),
        ('a [cat:dog:0.5]', ('[cat:dog:0.5]',)),
        ('a [cat|dog] and [cat|dog]', ('[cat|dog]',)),
        ('a {cat|dog}', ('{cat|dog}',)),
        ('a cat BREAK a dog', ('BREAK',)),
        ('a cat <lora:fur:0.8>, <hypernet:x:1>', ('<lora:fur:0.8>', '<hypernet:x:1>')),
        (r'a cat \(felis\)', (r'\(', r'\)')),
        ('(a:1.2) <lora:b:1> BREAK [c:5]', ('(a:1.2)', '<lora:b:1>', 'BREAK', '[c:5]')),
    ],
)
def test_marks_of_other_programs_are_found(prompt, found):
    assert unread.marks(prompt) == found


@pytest.mark.parametrize(
    ('syntax', 'found'),
    [
        ('plain', ('<lora:x:1>', '(a:1.3)', '(b)1.3', '[c:d:2]', '{e|f}', 'BREAK', 'AND', 'g++')),
        ('comfyui', ('<lora:x:1>', '(b)1.3', '[c:d:2]', '{e|f}', 'BREAK', 'AND', 'g++')),
        ('a1111', ('(b)1.3', '{e|f}', 'g++')),
    ],
)
def test_marks_that_a_syntax_does_not_know(syntax, found):
    prompt = '<lora:x:1> (a:1.3), (b)1.3 [c:d:2] {e|f} BREAK h AND g++'
    assert unread.marks(prompt, syntax) == found


@pytest.mark.parametrize(
    'prompt',
    [
        '',
        'a red apple, noto style',
        'a cat (felis catus) at 12:30',
        'a break in the clouds, BREAKFAST',
        '3 < 4 > 2',
        '<birb-style> bird',
        'a {thing}',
    ],
)
def test_plain_prompts_have_none(prompt):
    assert unread.marks(prompt) == ()


def test_words_with_a_zero_vector_are_found_by_name():
    tokenizer = clip.Tokenizer()
    table = np.zeros((clip.VOCAB_SIZE, 4), np.float16)
    table[tokenizer.encode('a red apple, noto style')] = 1
    assert unread.unknown_words('a red apple, noto style', tokenizer.encode, table) == ()
    texts = ['A red zebra, noto style', 'the zebra!', 'an apple,']
    assert unread.unknown_words(texts, tokenizer.encode, table) == ('zebra', '!')
    # A word of several tokens is known when all are.
    pieces = tokenizer.encode('noto')
    assert len(pieces) > 1
    table[pieces[0]] = 0
    assert unread.unknown_words('noto, apple', tokenizer.encode, table) == ('noto',)


def test_a_whole_vocabulary_has_no_unknown_words():
    def encode(text):
        raise AssertionError('nothing need be encoded')

    assert unread.unknown_words('anything', encode, np.ones((3, 2))) == ()
