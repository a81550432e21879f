"""Learned words and the images that are made with them: their hashes, as A1111's web UI writes and reads them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from ldm_jax.conditioning.prompts import reader
from ldm_jax.inference.opening import Described
from ldm_jax.inference.settings import Prompting
from ldm_jax.text.prompts.words import Word

DIGITS = 12  # of a hash, that the web UI writes


def hashes(model: Described, prompting: Prompting, prompt: str, negative_prompt: str) -> str:
    """'name: hash, ...' of the words in an image's prompts; '' without any."""
    if not model.words:
        return ''
    read = reader(model.tokenizers, model.words, prompting.syntax, prompting.emphasis)
    parts = [part.text for part in read.dialect.parts(prompt)] + [read.dialect.negative(negative_prompt)]
    used = dict.fromkeys(name for part in parts for name in read.used(part))
    return ', '.join(f'{_named(name)}: {model.words[name].hash[:DIGITS]}' for name in used)


def warn_of_missing(asked: str | None, words: Mapping[str, Word]) -> None:
    """Warns of words that an image was made with and that are not there, or are there with other vectors."""
    have = {_named(name): word.hash[:DIGITS] for name, word in words.items()}
    missing, other = [], []
    for item in (asked or '').split(','):
        name, _, digest = (each.strip() for each in item.partition(':'))
        if name and name not in have:
            missing.append(name)
        elif name and digest and have[name] != digest:
            other.append(name)
    if missing:
        warnings.warn(
            f'The image was made with learned words that are not there: {", ".join(missing)}. Give their files by '
            '--embeddings.',
            stacklevel=2,
        )
    if other:
        warnings.warn(
            f'Learned words have other vectors than in the image: {", ".join(other)}.', stacklevel=2
        )


def _named(name: str) -> str:
    """A name as the list of hashes has it."""
    return name.replace(':', '').replace(',', '')
