"""Marks of prompt languages that a tokenizer reads as plain text, and words that a text encoder does not know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)'
INSIDE = r'(?:[^()\\]|\\.)*'
MARKS = {
    'tag': r'<\w+:[^<>]*>',  # <lora:name:0.8>, <hypernet:name:1>
    'weight': rf'\({INSIDE}:\s*{NUMBER}\s*\)|\(\({INSIDE}\)\)|\\[()]',  # (word:1.3), ((word)), an escaped bracket
    'compel': rf'\({INSIDE}\)(?:{NUMBER}|[+-]+|\.\w+\()|\w(?:\+\+|--)(?!\w)',  # (word)1.3, word++
    'square': r'\[(?:[^\[\]\\]|\\.)*\]|\\[\[\]]',  # [word], [cat:dog:0.5], [cat|dog]
    'choice': r'\{[^{}]*\|[^{}]*\}',  # {cat|dog}
    'break': r'\bBREAK\b',
    'and': r'\bAND\b',
}
# What the languages of text.prompts.dialects understand.
KNOWN = {'a1111': {'tag', 'weight', 'square', 'break', 'and'}, 'comfyui': {'weight'}, 'plain': set()}
WORDS = re.compile(r'\w+|[^\w\s]+')
# Nobody misses what these add.
LITTLE = {'a', 'an', 'and', 'at', 'by', 'for', 'in', 'of', 'on', 'or', 'the', 'to', 'with', ',', '.'}


def marks(prompt: str, syntax: str = 'plain') -> tuple[str, ...]:
    """The marks in a prompt that have a meaning in some program and none in a syntax, each once, in order.

    They are weights, '(word:1.3)', '((word))', '[word]' and '(word)1.3'; changes while sampling, '[cat:dog:0.5]' and
    '[cat|dog]'; BREAK and AND; networks, '<lora:name:0.8>'; choices, '{cat|dog}'; and escaped brackets.
    """
    unknown = [pattern for name, pattern in MARKS.items() if name not in KNOWN[syntax]]
    found = re.finditer('|'.join(unknown), prompt)
    return tuple(dict.fromkeys(match.group() for match in found))


def unknown_words(
    texts: str | Iterable[str], encode: Callable[[str], Sequence[int]], embedding: np.ndarray
) -> tuple[str, ...]:
    """The words of texts that have a token whose vector is zero, each once, in order; articles and the like left out.

    Such a word adds nothing to a prompt. With the text encoder frozen no training can change that.

    Args:
        encode: a tokenizer's ids of a text, without start and end.
        embedding: the text encoder's token vectors [V, D].
    """
    texts = [texts] if isinstance(texts, str) else texts
    known = np.any(np.asarray(embedding) != 0, axis=1)
    if known.all():
        return ()
    words = dict.fromkeys(word for text in texts for word in WORDS.findall(text))
    words = [word for word in words if word.lower() not in LITTLE]
    return tuple(word for word in words if not known[list(encode(word))].all())
