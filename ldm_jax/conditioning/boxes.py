"""Boxes with classes, as a row of tokens that a text encoder reads: latent diffusion's layout2img.

A row has three tokens for each box, its class and its two corners, each corner a cell of a square grid; a token for
none fills the places of boxes that are not there, and two for the corners of the image's crop end the row.
Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3.1; Jahn et al. 2021, arXiv:2105.06458.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from ldm_jax.conditioning.networks import Networks, encode_text
from ldm_jax.data.box_tokens import tokens
from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Cond, PyTree


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


def _none(networks: Networks) -> np.ndarray:
    encoder = networks.module('text_encoder')
    return np.array([tokens([], encoder.vocab_size, encoder.context_length)], np.int32)


def _context(networks: Networks, rows: Array) -> Array:
    return encode_text(networks, {'tokens': rows})['context']
