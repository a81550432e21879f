"""Prompts of several parts, as A1111's web UI writes them: 'a cat :1.2 AND a dog :0.8'.

AND stands in capitals as a word of its own; a number behind a part's last colon is its weight, 1 without one, below 0
to take something away. Without AND a prompt is one text, whatever it ends in: 'a clock at 12:30'.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

AND = re.compile(r'\bAND\b')
WEIGHT = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)')


def split(prompt: str) -> list[tuple[str, float]]:
    """The parts of a prompt with their weights. Raises ValueError for a part without any text."""
    parts = AND.split(prompt)
    if len(parts) == 1:
        return [(prompt, 1.0)]
    found = []
    for part in parts:
        text, _, weight = part.rpartition(':')
        known = bool(WEIGHT.fullmatch(weight.strip())) and ':' in part
        text = (text if known else part).strip()
        if not text:
            raise ValueError(f'A part of the prompt {prompt!r} is empty: write a text on both sides of AND.')
        found.append((text, float(weight) if known else 1.0))
    return found


def columns(prompts: Sequence[str]) -> list[tuple[list[str], np.ndarray]]:
    """B prompts as C columns of B texts and their weights, float32 [B]; C is the most parts that one of them has.

    The other prompts repeat their last part with a weight of 0. Raises ValueError as `split`.
    """
    rows = [split(prompt) for prompt in prompts]
    most = max(map(len, rows), default=0)
    rows = [row + [(row[-1][0], 0.0)] * (most - len(row)) for row in rows]
    pairs = (zip(*column, strict=True) for column in zip(*rows, strict=True))
    return [(list(texts), np.asarray(weights, np.float32)) for texts, weights in pairs]
