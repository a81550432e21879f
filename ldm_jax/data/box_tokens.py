"""Boxes with classes as a row of tokens: latent diffusion's layouts.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.1; Jahn et al. 2021, arXiv:2105.06458.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Class, left, top, right, bottom; the image is 0 to 1 each way.
Box = tuple[int, float, float, float, float]


def tokens(boxes: Sequence[Box], vocab_size: int, length: int) -> list[int]:
    """A layout as a row of so many tokens.

    Raises ValueError for more boxes than fit, a class beyond the vocabulary, or a box that is not inside 0 to 1.
    """
    none, most = vocab_size - 1, (length - 2) // 3
    if len(boxes) > most:
        raise ValueError(f'{len(boxes)} boxes: this model takes {most} at most.')
    row = []
    for label, left, top, right, bottom in boxes:
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(
                f'Box {(label, left, top, right, bottom)} must be (class, left, top, right, bottom) with '
                '0 <= left < right <= 1 and 0 <= top < bottom <= 1.'
            )
        if not 0 <= label < none:
            raise ValueError(f'Class {label} of a box must be from 0 to {none - 1}.')
        row += [int(label), _cell(left, top, vocab_size), _cell(right, bottom, vocab_size)]
    row += [none] * (3 * (most - len(boxes)))
    return [*row, _cell(0, 0, vocab_size), _cell(1, 1, vocab_size)]


def _cell(x: float, y: float, vocab_size: int) -> int:
    """The token of a point: row by row, the cells of the largest square grid that the vocabulary has numbers for."""
    sections = math.isqrt(vocab_size)
    return round(y * (sections - 1)) * sections + round(x * (sections - 1))
