"""Marks of prompt languages that a tokenizer reads as plain text, and words that a text encoder does not know."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)'
MARKS = re.compile(
    rf"""
      <\w+:[^<>]*>                      # <lora:name:0.8>, <hypernet:name:1>
    | \((?:[^()\\]|\\.)*:\s*{NUMBER}\s*\)  # (word:1.3)
    | \((?:[^()\\]|\\.)*\){NUMBER}         # (word)1.3
    | \(\((?:[^()\\]|\\.)*\)\)             # ((word))
    | \[(?:[^\[\]\\]|\\.)*\]               # [word], [cat:dog:0.5], [cat|dog]
    | \{{[^{{}}]*\|[^{{}}]*\}}             # {{cat|dog}}
    | \bBREAK\b
    | \\[()\[\]]                           # an escaped bracket
    """,
    re.VERBOSE,
)
WORDS = re.compile(r'\w+|[^\w\s]+')
# Nobody misses what these add.
LITTLE = {'a', 'an', 'and', 'at', 'by', 'for', 'in', 'of', 'on', 'or', 'the', 'to', 'with', ',', '.'}


def marks(prompt: str) -> tuple[str, ...]:
    """The marks in a prompt that have a meaning in other programs and none here, each once, in order.

    They are weights, '(word:1.3)', '((word))' and '[word]'; changes while sampling, '[cat:dog:0.5]' and '[cat|dog]';
    BREAK; networks, '<lora:name:0.8>'; and escaped brackets. AND has a meaning here (prompt.py).
    """
    return tuple(dict.fromkeys(found.group() for found in MARKS.finditer(prompt)))


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
