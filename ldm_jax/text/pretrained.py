"""Tokenizers of other families, as transformers reads them: T5's, or a BERT of another vocabulary.

A text encoder of one's own may want ids that neither `clip` nor `bert` gives. This one reads whatever folder or
repository transformers has a tokenizer for; transformers is imported when the first text is encoded.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ldm_jax.text import padding


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Texts to the ids of a published tokenizer: a call gives int32 [B, context_length].

    Args:
        path: a folder with a tokenizer of transformers (tokenizer.json, or the files of its class), or an id on the
            Hugging Face hub. Code that such a folder may hold is never run.
        context_length: length of a row, with the special tokens that the tokenizer adds.

    Raises:
        ValueError: context_length is below 2.
    """

    path: str | os.PathLike[str]
    context_length: int = 77

    def __post_init__(self):
        padding.check_context_length(self.context_length)

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """The ids of texts, padded, int32 [B, context_length]; B is 1 for a single str.

        Warns for each text that is too long; the special tokens at its end are kept.

        Raises:
            TypeError: texts is neither a str nor a sequence of str.
            ValueError: there is no text, or no tokenizer in the folder.
            FileNotFoundError: the tokenizer is neither on this machine nor to be had from the hub.
        """
        engine = _engine(self.path)
        texts = padding.listed(texts)
        for text, ids in zip(texts, engine(texts)['input_ids'], strict=True):
            if len(ids) > self.context_length:
                warnings.warn(
                    f'Text too long: {len(ids)} tokens where context_length is {self.context_length}; '
                    f'its end is left out: {padding.shortened(text)}.',
                    stacklevel=2,
                )
        rows = engine(texts, padding='max_length', truncation=True, max_length=self.context_length)
        return np.asarray(rows['input_ids'], np.int32)

    def frame(self) -> padding.Frame:
        """What is around a text's ids in a row. Raises FileNotFoundError, ValueError as a call."""
        engine = _engine(self.path)
        around = engine('a')['input_ids']
        ids = engine.encode('a', add_special_tokens=False)
        first = next(i for i in range(len(around)) if around[i : i + len(ids)] == ids)
        return padding.Frame(
            tuple(around[:first]), tuple(around[first + len(ids) :]), int(engine.pad_token_id)
        )

    def encode(self, text: str) -> list[int]:
        """The ids of the whole text, however long, without special tokens and padding."""
        padding.check_text(text)
        return list(_engine(self.path).encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of one row or of encode's ids [L], without special tokens."""
        return _engine(self.path).decode([int(i) for i in ids], skip_special_tokens=True)


@functools.lru_cache(maxsize=4)
def _engine(path: str | os.PathLike[str]) -> Any:
    import transformers  # slow to import

    try:
        engine = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except OSError as error:
        raise FileNotFoundError(
            f'No tokenizer {str(path)!r} on this machine or on the hub: {error}'
        ) from error
    if (
        engine.pad_token is None
    ):  # rows need something behind a text; its end is what CLIP's own family repeats
        if engine.eos_token is None:
            raise ValueError(
                f'{path}: a tokenizer without padding and without end token; name one in its folder.'
            )
        engine.pad_token = engine.eos_token
    return engine
