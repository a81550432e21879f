"""Prompts of several parts with weights, as A1111's web UI writes them: 'a cat :1.2 AND a dog :0.8'.

AND stands in capitals as a word of its own. A number behind the last colon of a part is its weight, below 0 to take
something away, and so it is without AND too: the weight of 'a clock at 12:30' is 30.

Ref: Liu et al. 2022, arXiv:2206.01714; AUTOMATIC1111/stable-diffusion-webui 1.10, get_multicond_prompt_list.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_AND = re.compile(r'\bAND\b')
_WEIGHT = re.compile(r'[-+]?(?:\d+\.?|\d*\.\d+)')


class Part(NamedTuple):
    """A part of a prompt and how strongly it is guided towards."""

    text: str
    weight: float


def parts(prompt: str) -> list[Part]:
    """The parts of a prompt with their weights, at least one; a part may be empty."""
    return [_part(part.rstrip()) for part in _AND.split(prompt)]


def _part(part: str) -> Part:
    text, colon, weight = part.rpartition(':')
    if colon and _WEIGHT.fullmatch(weight.strip()):
        return Part(text.rstrip(), float(weight))
    return Part(part, 1.0)
