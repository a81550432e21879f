"""Warnings of prompts, or parts of them, that have no effect on images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.requests.request import Request
from ldm_jax.text import prompt, unread

SHOWN = 10  # that a warning quotes


def warn_of_marks(request: Request) -> None:
    """Warns of a prompt without a text, and of marks that mean something in other programs alone."""
    prompts = request.prompts or ()
    if any(not text.strip() for text in prompts):
        warnings.warn(
            'The prompt is empty: the images show whatever the model makes of no text.', stacklevel=2
        )
    found = [mark for text in (*prompts, request.negative_prompt) for mark in unread.marks(text)]
    if found:
        warnings.warn(
            f'Read as plain text, without the meaning of other programs: {_quoted(found)}.', stacklevel=2
        )


def warn_of_words(request: Request, pipeline: Pipeline) -> None:
    """Warns of words whose vectors are zero in every text encoder of the model."""
    texts = [part for text in request.prompts or () for part, _ in prompt.split(text)] + [
        request.negative_prompt
    ]
    found = None
    for name, tokenizer in zip(('text_encoder', 'text_encoder_2'), pipeline.tokenizers, strict=False):
        table = pipeline.params.get(name, {}).get('token_embedding', {}).get('embedding')
        if table is None or not hasattr(tokenizer, 'encode'):
            return
        words = unread.unknown_words(texts, tokenizer.encode, np.asarray(table))
        found = words if found is None else [word for word in found if word in words]
    if found:
        warnings.warn(
            f'Words without an effect, since the text encoder does not know them: {_quoted(found)}.',
            stacklevel=2,
        )


def _quoted(found: Sequence[str]) -> str:
    found = list(dict.fromkeys(found))
    return ', '.join(map(repr, found[:SHOWN])) + (', ...' if len(found) > SHOWN else '')
