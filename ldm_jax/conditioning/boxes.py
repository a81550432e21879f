"""Boxes with classes, as a row of tokens that a text encoder reads: latent diffusion's layout2img.

A row has three tokens for each box, its class and its two corners, each corner a cell of a square grid; a token for
none fills the places of boxes that are not there, and two for the corners of the image's crop end the row.
Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.1; Jahn et al. 2021, arXiv:2105.06458.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ldm_jax.conditioning.networks import Networks, encode_text
from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Cond, PyTree

# Class, left, top, right, bottom; the image is 0 to 1 each way.
Box = tuple[int, float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.context, by a part text_encoder, which is not one of texts here. No box at all stands for no layout."""

    drop_rate: float = 0.0
    batch: ClassVar = (('boxes',),)
    optional: ClassVar = ()
    given: ClassVar = batch
    requires: ClassVar = ('text_encoder',)

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('context',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'boxes' [B, L] of `tokens`."""
        context = _context(networks, batch['boxes'])
        if self.drop_rate == 0:
            return Cond(context=context)
        return Cond(
            context=jnp.where(per_example(drop, context), _context(networks, _none(networks)), context)
        )

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: 'boxes' [B, L] of `tokens`."""
        cond = Cond(context=_context(networks, given['boxes']))
        if self.drop_rate == 0:
            return cond, cond
        null = jnp.broadcast_to(_context(networks, _none(networks)), cond.context.shape)
        return Cond(context=null), cond


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


def _none(networks: Networks) -> np.ndarray:
    encoder = networks.module('text_encoder')
    return np.array([tokens([], encoder.vocab_size, encoder.context_length)], np.int32)


def _context(networks: Networks, rows: Array) -> Array:
    return encode_text(networks, {'tokens': rows})['context']
