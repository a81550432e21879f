"""Texts: the network attends to a text encoder's vectors, and reads a second one's projection as a vector.

Ref: Rombach et al. 2022, arXiv:2112.10752, section 4.3; Podell et al. 2023, arXiv:2307.01952, section 2.1 (SDXL).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from ldm_jax.build import unknown
from ldm_jax.conditioning import weighted
from ldm_jax.conditioning.networks import Networks, encode_text
from ldm_jax.diffusion.process import per_example
from ldm_jax.types import Array, Cond, PyTree

NULLS = ('empty', 'zeros')
UNPROJECTED = "conditioning.text.pooled needs a text encoder with a projection, or 'pooled' in the data."
NEGATIVE = 'negative_'  # before the names of what guidance leads away from


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Cond.context, and with `pooled` Cond.vector.

    null: what stands for no text: the 'empty' text, or 'zeros' (SDXL).
    pooled: the last encoder's projected text is (the first part of) the vector.

    Raises ValueError for another null.
    """

    drop_rate: float = 0.0
    null: str = 'empty'
    pooled: bool = False
    batch: ClassVar = (('context',), ('tokens',))
    optional: ClassVar = ('pooled', 'tokens_2')
    given: ClassVar = batch
    requires: ClassVar = ()

    def __post_init__(self):
        if self.null not in NULLS:
            raise unknown('null of text', self.null, list(NULLS))

    def parts(self, networks: Networks) -> tuple[str, ...]:
        return ('context', 'vector') if self.pooled else ('context',)

    def train(self, networks: Networks, batch: PyTree, drop: Array, keys: Array) -> Cond:
        """Batch: 'tokens' (and 'tokens_2'), or embeddings 'context' (and with pooled 'pooled')."""
        context, vector = self._encoded(networks, batch)
        no_context, no_vector = self._null(networks, context, vector, embedded='context' in batch)
        context = jnp.where(per_example(drop, context), no_context, context)
        return Cond(
            context=context, vector=jnp.where(drop[:, None], no_vector, vector) if self.pooled else None
        )

    def sample(self, networks: Networks, given: Mapping[str, Array]) -> tuple[Cond, Cond]:
        """Given: as `train`, and likewise named 'negative_tokens', ... what guidance leads away from.

        The null text is the default of that. 'blank' [B] says which negative texts are empty, as these may be zeros.
        With 'weights' texts come as variants in chunks, which weighted.encode describes, and so are both conditionings:
        leaves [B, V, ...].
        """
        negative = {
            name.removeprefix(NEGATIVE): array for name, array in given.items() if name.startswith(NEGATIVE)
        }
        if 'weights' in given:
            given = {name: array for name, array in given.items() if not name.startswith(NEGATIVE)}
            found = weighted.encode(networks, *[each for each in (given, negative) if each])
            (context, vector), (no_context, no_vector) = found[0], found[-1]
            if self.pooled and vector is None:
                raise ValueError(UNPROJECTED)
            no_context, no_vector = self._blank(given, no_context, no_vector)
        elif not negative:
            context, vector = self._encoded(networks, given)
            no_context, no_vector = self._null(networks, context, vector, embedded='context' in given)
            no_context = jnp.broadcast_to(no_context, context.shape)
            no_vector = None if vector is None else jnp.broadcast_to(no_vector, vector.shape)
        else:
            both = {name: jnp.concatenate([array, given[name]]) for name, array in negative.items()}
            contexts, vectors = self._encoded(networks, both)  # the encoders are once in the program
            no_context, context = jnp.split(contexts, 2)
            no_vector, vector = (None, None) if vectors is None else jnp.split(vectors, 2)
            no_context, no_vector = self._blank(given, no_context, no_vector)
        if not self.pooled:
            vector = no_vector = None
        return Cond(context=no_context, vector=no_vector), Cond(context=context, vector=vector)

    def _blank(
        self, given: Mapping[str, Array], context: Array, vector: Array | None
    ) -> tuple[Array, Array | None]:
        """The context and vector of negative texts, zeros for the empty ones where these are."""
        if self.null != 'zeros' or 'blank' not in given:
            return context, vector
        blank = given['blank']
        context = jnp.where(per_example(blank, context), 0, context)
        return context, None if vector is None else jnp.where(per_example(blank, vector), 0, vector)

    def _encoded(self, networks: Networks, said: Mapping[str, Array]) -> tuple[Array, Array | None]:
        """(context, vector) of texts. Raises ValueError where pooled is wanted of an encoder without a projection."""
        found = said if 'context' in said else encode_text(networks, said)
        if not self.pooled:
            return found['context'], None
        if 'pooled' not in found:
            raise ValueError(UNPROJECTED)
        return found['context'], found['pooled']

    def _null(
        self, networks: Networks, context: Array, vector: Array | None, embedded: bool
    ) -> tuple[Array, Array | None]:
        """(context [1, L, D], vector [1, P]) that stand for no text; zeros where the empty text is not to be had."""
        if self.null == 'empty' and embedded and 'context' in networks.empty_text:
            found = {name: jnp.asarray(array)[None] for name, array in networks.empty_text.items()}
            return self._encoded(networks, found)
        if self.null == 'empty' and networks.tokenizers:
            return self._encoded(
                networks,
                {name: jnp.asarray(tokenizer('')) for name, tokenizer in networks.tokenizers.items()},
            )
        # Of a drop rate above 0 a stage has checked that the empty text is to be had.
        return jnp.zeros_like(context[:1]), None if vector is None else jnp.zeros_like(vector[:1])
