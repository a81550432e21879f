"""BERT's WordPiece tokenizer, as the text models of the latent diffusion paper use it.

Those models were trained on bert-base-uncased ids, padded with 0 to 77 and never masked. The vocabulary
is not part of this package: it is downloaded once from the Hugging Face hub, or read from a file.

Ref: Devlin et al. 2018, arXiv:1810.04805; Wu et al. 2016, arXiv:1609.08144, section 4.1.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ldm_jax.text import padding

START, END, PAD, UNKNOWN, MASK = '[CLS]', '[SEP]', '[PAD]', '[UNK]', '[MASK]'


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Texts to WordPiece ids: a call gives int32 [B, context_length], [CLS], text, [SEP], padding.

    The vocabulary is read at first use and kept for the life of the process.

    Args:
        vocab: an id on the Hugging Face hub, of which tokenizer.json is fetched into the hub's cache; or
            the path of a vocab.txt (one token a line, taken to be uncased), of a tokenizer.json, or of a
            folder that holds one of them (tokenizer.json comes first: it says how text is normalized).
        context_length: length of a row, with start and end token.

    Raises:
        ValueError: context_length is below 2.
    """

    vocab: str | os.PathLike[str] = 'bert-base-uncased'
    context_length: int = 77

    def __post_init__(self):
        padding.check_context_length(self.context_length)

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """The ids of texts, int32 [B, context_length]; B is 1 for a single str.

        Warns for each text that is too long and names the words that were cut; the end token is kept.

        Raises:
            TypeError: texts is neither a str nor a sequence of str.
            ValueError: there is no text, or the vocabulary lacks a special token.
            FileNotFoundError: the vocabulary is neither on this machine nor to be had from the hub.
        """
        vocabulary = _vocabulary(self.vocab)
        return padding.pad_rows(
            texts,
            self.encode,
            vocabulary.spell,
            context_length=self.context_length,
            start_id=vocabulary.start_id,
            end_id=vocabulary.end_id,
            pad_id=vocabulary.pad_id,
        )

    def frame(self) -> padding.Frame:
        """What is around a text's ids in a row. Raises FileNotFoundError, ValueError as a call."""
        vocabulary = _vocabulary(self.vocab)
        return padding.Frame((vocabulary.start_id,), (vocabulary.end_id,), vocabulary.pad_id)

    def encode(self, text: str) -> list[int]:
        """The ids of the whole text, however long, without start, end and padding.

        Raises:
            TypeError: text is not a str.
            FileNotFoundError, ValueError: as in a call.
        """
        padding.check_text(text)
        # Half of a surrogate pair has no UTF-8; as the replacement character, BERT's cleaning drops it.
        text = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
        return _vocabulary(self.vocab).engine.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of one row or of encode's ids [L], without [CLS], the first [SEP] and all behind it.

        Raises:
            ValueError: ids is not one row of ids of this vocabulary.
            FileNotFoundError: as in a call.
        """
        vocabulary = _vocabulary(self.vocab)
        size = vocabulary.engine.get_vocab_size()
        return vocabulary.spell(
            padding.unpad_row(ids, start_id=vocabulary.start_id, end_id=vocabulary.end_id, vocab_size=size)
        )


class _Vocabulary(NamedTuple):
    engine: Any  # tokenizers.Tokenizer
    start_id: int
    end_id: int
    pad_id: int

    def spell(self, ids: list[int]) -> str:
        return self.engine.decode(ids, skip_special_tokens=False)


@functools.lru_cache(maxsize=8)
def _vocabulary(vocab: str | os.PathLike[str]) -> _Vocabulary:
    file = _file(vocab)
    try:
        engine = _read_list(file) if file.suffix == '.txt' else _read_json(file)
    except Exception as error:  # tokenizers raises bare Exception for what it cannot read
        raise ValueError(
            f'Cannot read the vocabulary {str(file)!r}: {error}. '
            'Expected a vocab.txt with one token a line or a tokenizer.json.'
        ) from error
    ids = [engine.token_to_id(token) for token in (START, END, PAD, UNKNOWN)]
    if None in ids:
        missing = [t for t, i in zip((START, END, PAD, UNKNOWN), ids, strict=True) if i is None]
        raise ValueError(f'The vocabulary {str(file)!r} lacks {missing}; it is not a BERT vocabulary.')
    return _Vocabulary(engine, *ids[:3])


def _file(vocab: str | os.PathLike[str]) -> Path:
    path = Path(vocab).expanduser()
    if path.is_dir():
        files = [path / 'tokenizer.json', path / 'vocab.txt']
        found = [file for file in files if file.is_file()]
        if not found:
            raise FileNotFoundError(f'The folder {str(vocab)!r} holds neither tokenizer.json nor vocab.txt.')
        return found[0]
    if path.is_file():
        return path
    if path.suffix in ('.txt', '.json'):
        raise FileNotFoundError(f'No vocabulary file {str(vocab)!r}.')
    return _download(str(vocab))


def _download(name: str) -> Path:
    import huggingface_hub

    try:
        # A vocabulary does not change, so a cached one is used without asking the hub.
        cached = huggingface_hub.try_to_load_from_cache(name, 'tokenizer.json')
        if not isinstance(cached, str):
            cached = huggingface_hub.hf_hub_download(name, 'tokenizer.json')
    except (OSError, ValueError) as error:  # no network, no such id, or not an id at all
        raise FileNotFoundError(
            f'No vocabulary {name!r}: it is no file or folder here, not in the hub cache, and the hub did '
            f'not give it ({error}). With a network, run `hf download {name} tokenizer.json` once; '
            "without one, copy the model's vocab.txt or tokenizer.json here and give its path as vocab."
        ) from error
    return Path(cached)


def _read_list(file: Path):
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    vocab = models.WordPiece.read_file(str(file))
    engine = Engine(models.WordPiece(vocab, unk_token=UNKNOWN))
    # As in BERT's own code, special tokens spelled out in a text are those tokens.
    engine.add_special_tokens([token for token in (UNKNOWN, END, PAD, START, MASK) if token in vocab])
    engine.normalizer = normalizers.BertNormalizer(lowercase=True)  # strips accents when it lowercases
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    return engine


def _read_json(file: Path):
    from tokenizers import Tokenizer as Engine

    engine = Engine.from_file(str(file))
    # The file may ask for a length of its own.
    engine.no_truncation()
    engine.no_padding()
    return engine
