"""The tokenizer that follows from a text encoder, where nothing else says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldm_jax import build
from ldm_jax.models import bert, clip_text
from ldm_jax.text import clip

BERT_VOCAB_SIZE = 30522  # of bert-base-uncased
TOKENIZED = {'tokenizer': 'text_encoder', 'tokenizer_2': 'text_encoder_2'}


def of_encoder(model: Any) -> dict[str, Any] | None:
    """The spec of a text encoder's tokenizer; None where its vocabulary is one of its own.

    OpenCLIP's family, which has the exact GELU, pads with id 0, OpenAI's with the end token.
    """
    if isinstance(model, bert.Model) and model.vocab_size == BERT_VOCAB_SIZE:
        return dict(name='bert', context_length=model.context_length)
    if isinstance(model, clip_text.Model) and model.vocab_size == clip.VOCAB_SIZE:
        pad_id = 0 if model.activation == 'gelu' else clip.END_ID
        return dict(name='clip', context_length=model.context_length, pad_id=pad_id)
    return None


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with a tokenizer for each of CLIP's text encoders; those that are there stay.

    A BERT without a tokenizer reads boxes and classes, so it is left as it is.
    """
    found = dict(settings)
    for key, part in TOKENIZED.items():
        spec = settings.get('models', {}).get(part, {})
        if settings.get(key) is None and spec.get('name') == 'clip_text':
            tokenizer = of_encoder(build.build('models', spec))
            if tokenizer is not None:
                found[key] = tokenizer
    return found
