"""CLIP's byte-pair tokenizer: the ids that OpenAI's own code gives, without a network.

A text is mended (ftfy), its HTML entities are resolved, it is lowercased and split into words, digits
and runs of symbols. Each word becomes UTF-8 bytes, and the bytes are merged by the vocabulary's table,
the pair that stands first in the table first. OpenCLIP differs in the padding id alone.

Ref: Radford et al. 2021, arXiv:2103.00020, section 2.4; byte pairs: Sennrich et al. 2015, arXiv:1508.07909.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import html
import importlib.resources
from collections.abc import Sequence

import numpy as np

from ldm_jax.text import padding

START_ID = 49406
END_ID = 49407
VOCAB_SIZE = 49408

START, END = '<|startoftext|>', '<|endoftext|>'
# The file holds more merges than CLIP uses: 256 bytes, each inside and at the end of a word, these
# merges and the two special tokens are the vocabulary.
MERGES = VOCAB_SIZE - 2 * 256 - 2
WORD_END = '</w>'


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Texts to CLIP ids: a call gives int32 [B, context_length], start, text, end, padding.

    The special tokens may be spelled out in a text, '<|endoftext|>', and then become their ids, as in
    OpenAI's code.

    Args:
        context_length: length of a row, with start and end token; all published CLIP models have 77.
        pad_id: fills a row behind the end token: 49407 in Stable Diffusion 1 and SDXL's first encoder,
            0 in the OpenCLIP family (Stable Diffusion 2, SDXL's second encoder).

    Raises:
        ValueError: context_length is below 2, or pad_id is not in the vocabulary.
    """

    context_length: int = 77
    pad_id: int = END_ID

    def __post_init__(self):
        padding.check_context_length(self.context_length)
        if self.pad_id not in range(VOCAB_SIZE):
            raise ValueError(
                f'pad_id {self.pad_id!r} must be an id below {VOCAB_SIZE}: {END_ID} for OpenAI CLIP, '
                '0 for OpenCLIP.'
            )

    def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
        """The ids of texts, int32 [B, context_length]; B is 1 for a single str.

        Warns for each text that is too long and names the words that were cut; the end token is kept.

        Raises:
            TypeError: texts is neither a str nor a sequence of str.
            ValueError: there is no text.
        """
        return padding.pad_rows(
            texts,
            self.encode,
            _spell,
            context_length=self.context_length,
            start_id=START_ID,
            end_id=END_ID,
            pad_id=self.pad_id,
        )

    def frame(self) -> padding.Frame:
        """What is around a text's ids in a row."""
        return padding.Frame((START_ID,), (END_ID,), self.pad_id)

    def encode(self, text: str) -> list[int]:
        """The ids of the whole text, however long, without start, end and padding.

        Raises:
            TypeError: text is not a str.
        """
        import ftfy

        padding.check_text(text)
        # Captions from web pages were often escaped twice, so OpenAI's code resolves entities twice. It
        # also joins runs of whitespace, which changes nothing here: whitespace is never part of a word.
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        words = _word_pattern().findall(text.lower())
        return _byte_pairs().encode(words, is_pretokenized=True, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of one row or of encode's ids [L]: lowercased, with one space behind each word.

        The start token, the first end token and everything behind it are left out.

        Raises:
            ValueError: ids is not one row of ids of this vocabulary.
        """
        return _spell(padding.unpad_row(ids, start_id=START_ID, end_id=END_ID, vocab_size=VOCAB_SIZE))


def _spell(ids: list[int]) -> str:
    return _byte_pairs().decode(ids, skip_special_tokens=False).strip()


@functools.lru_cache(maxsize=1)
def _word_pattern():
    # regex, not re or the splitter of tokenizers: each carries its own Unicode tables, and CLIP's ids
    # follow those of regex, down to its case folding ('ſ counts as 's).
    import regex

    contractions = "'s|'t|'re|'ve|'m|'ll|'d"
    special = '|'.join(regex.escape(token) for token in (START, END))
    return regex.compile(rf'{special}|{contractions}|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+', regex.IGNORECASE)


@functools.lru_cache(maxsize=1)
def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The ids of all tokens, the bytes of a token as printable letters, and the pairs to merge in order."""
    from tokenizers import pre_tokenizers

    file = importlib.resources.files('ldm_jax.text') / 'bpe_simple_vocab_16e6.txt.gz'
    lines = gzip.decompress(file.read_bytes()).decode('utf-8').split('\n')
    merges = [tuple(line.split()) for line in lines[1 : MERGES + 1]]  # the first line is a version note
    # The printable stand-ins of the 256 bytes are numbered in the order of their code points.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [letter + WORD_END for letter in letters] + [a + b for a, b in merges] + [START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


@functools.lru_cache(maxsize=1)
def _byte_pairs():
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, pre_tokenizers

    vocab, merges = vocabulary()
    engine = Engine(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix=WORD_END))
    engine.add_special_tokens([START, END])
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # Bytes are joined first: a letter may be spread over tokens, and a token may end inside one.
    engine.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(WORD_END, ' ')])
    return engine
