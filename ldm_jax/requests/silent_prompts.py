"""Warnings of prompts, or parts of them, that have no effect on images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from ldm_jax.inference.pipeline import Pipeline
from ldm_jax.requests.request import Request
from ldm_jax.text import unread
from ldm_jax.text.prompts import composition, tags

SHOWN = 10  # that a warning quotes


def warn_of_marks(request: Request) -> None:
    """Warns of a prompt without a text, and of marks that mean something in other programs alone."""
    prompts = request.prompts or ()
    if any(not text.strip() for text in prompts):
        warnings.warn(
            'The prompt is empty: the images show whatever the model makes of no text.', stacklevel=2
        )
    syntax = request.sampling.prompting.syntax
    found = [mark for text in (*prompts, request.negative_prompt) for mark in unread.marks(text, syntax)]
    if found:
        warnings.warn(f'Read as plain text by --prompt_syntax {syntax}: {_quoted(found)}.', stacklevel=2)
    if syntax == 'a1111':
        _warn_of_weights(prompts)
        _warn_of_tags(prompts)


def _warn_of_weights(prompts: Sequence[str]) -> None:
    """Warns of prompts of one part that end in what is its weight, as 'a clock at 12:30' does."""
    for text in prompts:
        (part, *others) = composition.parts(text)
        if not others and part.weight != 1:
            warnings.warn(
                f'The prompt {part.text!r:.80} ends in its weight, {part.weight:g}, as in the web UI: put a comma '
                'behind it if that is text.',
                stacklevel=3,
            )


def _warn_of_tags(prompts: Sequence[str]) -> None:
    """Warns of tags that nothing here loads, '<hypernet:name:1>' among them; those of adapters are cut before."""
    found = [f'<{":".join((tag.kind, *tag.items))}>' for text in prompts for tag in tags.cut(text)[1]]
    if found:
        warnings.warn(f'Tags without an effect are left out: {_quoted(found)}.', stacklevel=3)


def warn_of_words(request: Request, pipeline: Pipeline) -> None:
    """Warns of words whose vectors are zero in every text encoder of the model."""
    if not pipeline.tokenizers:
        return
    reader = pipeline.reader(request.sampling.prompting)
    parts = [part.text for text in request.prompts or () for part in reader.dialect.parts(text)]
    texts = [text for part in (*parts, request.negative_prompt) for text in reader.texts(part)]
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
