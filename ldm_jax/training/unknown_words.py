"""Words of the captions that a frozen text encoder does not know: training cannot teach them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping

import numpy as np

from ldm_jax.conditioning.networks import TEXT_ENCODERS
from ldm_jax.data import pipeline
from ldm_jax.data.corrupt import Corrupt
from ldm_jax.text import unread
from ldm_jax.types import PyTree, Tokenizer

LOOKED_AT = 10_000  # examples at most, evenly spread
SHOWN = 10  # words that the warning quotes

log = logging.getLogger(__name__)


def warn(
    source: pipeline.Examples, tokenizers: Mapping[str, Tokenizer], frozen: Mapping[str, PyTree]
) -> None:
    """Warns, by name, of words in a source's captions whose vectors are zero in a frozen text encoder.

    Args:
        source: with texts.
        tokenizers: by the name of their tokens, as conditioning.networks.TEXT_ENCODERS has it for each text encoder.
        frozen: part -> parameters that are not trained.
    """
    for part, tokens in TEXT_ENCODERS.items():
        embedding = frozen.get(part, {}).get('token_embedding', {}).get('embedding')
        if tokens not in tokenizers or embedding is None or np.any(np.asarray(embedding) != 0, axis=1).all():
            continue
        words = unread.unknown_words(_captions(source), tokenizers[tokens].encode, np.asarray(embedding))
        if words:
            quoted = ', '.join(map(repr, words[:SHOWN])) + (', ...' if len(words) > SHOWN else '')
            log.warning(
                '%d words of the captions are unknown to the frozen %s and cannot be learned: %s. Their vectors are '
                'zero, so a prompt says nothing by them. To teach them, train a text encoder on these captions (stage '
                'contrastive), or train this one too: name %s under models and the model as warm_start.',
                len(words),
                part,
                quoted,
                part,
            )


def _captions(source: pipeline.Examples) -> list[str]:
    numbers = range(0, len(source), -(-len(source) // LOOKED_AT))
    return list(itertools.chain.from_iterable(_of_example(source, i) for i in numbers))


def _of_example(source: pipeline.Examples, i: int) -> tuple[str, ...]:
    try:
        return tuple(pipeline.captions(source, i))
    except Corrupt:  # counted when it is read
        return ()
