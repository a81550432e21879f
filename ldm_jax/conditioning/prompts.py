"""Prompts as arrays for a model's text encoders: the variants of each, their chunks, and when they hold.

A prompt that changes while sampling has several variants, each a text of one or more chunks that an encoder reads
apart. Numbers of variants and chunks are rounded up to a few, so that few programs serve all prompts.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from ldm_jax.conditioning.networks import TEXT_ENCODERS
from ldm_jax.text.prompts import dialects
from ldm_jax.text.prompts.chunks import Chunk
from ldm_jax.text.prompts.dialects import Dialect, Steps
from ldm_jax.text.prompts.schedule import Entry
from ldm_jax.text.prompts.words import Word
from ldm_jax.types import Tokenizer

CHUNKS = (1, 2, 3, 4, 8, 16, 32)  # that texts have in programs
LEARNED = 16  # vectors of learned words in a program, or a multiple of it
EVALUATIONS = 2048  # of a run whose prompts change: twice as many as programs have steps


@dataclasses.dataclass(frozen=True)
class Texts:
    """B prompts, or one part of each, as a text encoder takes them.

    Attributes:
        arrays: what conditioning.text is given: 'tokens' [B, L] of plain texts, or with 'weights' and the rest
            'tokens' [B, V, N, L] of V variants of N chunks.
        index: int32 [B, E], the variant that holds at each evaluation; None where nothing changes.
        chunks: how many chunks each of the B has; the rest of N is padding.
        blank: bool [B], which of the texts are empty, where the dialect has zeros for these.
        used: names of the learned words in them.
    """

    arrays: Mapping[str, np.ndarray]
    index: np.ndarray | None
    chunks: Sequence[int]
    blank: np.ndarray
    used: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads texts for the tokenizers of a model, in one dialect.

    Attributes:
        tokenizers: by the name of their tokens: 'tokens', 'tokens_2'.
        parts: name of the tokens -> the text encoder that reads them.
        words: learned words that fit the model.
        emphasis: of dialects.EMPHASES.
    """

    dialect: Dialect
    tokenizers: Mapping[str, Tokenizer]
    parts: Mapping[str, str]
    words: Mapping[str, Word] = dataclasses.field(default_factory=dict)
    emphasis: str = 'original'

    def read(self, texts: Sequence[str], steps: Steps, *, weighted: bool = False) -> Texts:
        """Texts, parts of prompts, as arrays.

        weighted: with weights and chunks, even where plain tokens would do.

        Raises ValueError for a text of more chunks than programs have, and for weights that are none.
        """
        chunks_of = self.dialect.chunks
        if chunks_of is None:
            return self._plain(texts)
        schedules = [self.dialect.entries(text, steps) for text in texts]
        variants = [list(dict.fromkeys(text for _, text in entries)) for entries in schedules]
        counts = {name: word.count for name, word in self.words.items()}
        asked: list[str] = []
        chunked: dict[str, dict[str, list[Chunk]]] = {name: {} for name in self.tokenizers}
        for name, tokenizer in self.tokenizers.items():
            room = tokenizer.context_length - framing(tokenizer)
            for text in {text: None for found in variants for text in found}:
                made, missed = chunks_of(text, self.emphasis, tokenizer.encode, room, counts)
                chunked[name][text], asked = made, [*asked, *missed]
        if asked:
            _warn_of(sorted(set(asked)), sorted(self.words))
        sizes = [max(len(found[text]) for found in chunked.values() for text in each) for each in variants]
        if not weighted and max(map(len, variants)) == 1 and max(sizes) == 1 and _is_plain(chunked):
            return Texts(
                {
                    name: self._rows(name, [made[each[0]] for each in variants], 1)[:, 0]
                    for name, made in chunked.items()
                },
                None,
                sizes,
                self._blank(variants),
            )
        return self._weighted(schedules, variants, chunked, sizes)

    def texts(self, part: str) -> list[str]:
        """The words of a part of a prompt, in all its variants, without the marks of the language."""
        found = dict.fromkeys(text for _, text in self.dialect.entries(part, Steps(2)))
        return [fragment.text for text in found for fragment in self.dialect.fragments(text)]

    def used(self, part: str) -> list[str]:
        """The learned words in a part of a prompt, in all its variants."""
        if not self.words or self.dialect.chunks is None:
            return []
        counts = {name: word.count for name, word in self.words.items()}
        tokenizer = next(iter(self.tokenizers.values()))
        room = tokenizer.context_length - framing(tokenizer)
        found: dict[str, None] = {}
        for text in {text for _, text in self.dialect.entries(part, Steps(2))}:
            made, _ = self.dialect.chunks(text, self.emphasis, tokenizer.encode, room, counts)
            found |= {word: None for chunk in made for _, word in chunk.words}
        return list(found)

    def _weighted(self, schedules, variants, chunked, sizes) -> Texts:
        longest, most = rounded(max(sizes)), 1 << (max(map(len, variants)) - 1).bit_length()
        used = tuple(
            dict.fromkeys(
                word
                for chunks in next(iter(chunked.values())).values()
                for c in chunks
                for _, word in c.words
            )
        )
        arrays = {}
        for name, found in chunked.items():
            rows = [[found[text] for text in _filled(each, most)] for each in variants]
            arrays[name] = np.stack([self._rows(name, row, longest, used) for row in rows])
            if used:
                arrays[name.replace('tokens', 'words')] = self._vectors(self.parts[name], used, len(variants))
        first, found = next(iter(chunked.items()))
        tokenizer = self.tokenizers[first]
        length, before = tokenizer.context_length, len(tokenizer.frame()[0])
        weights = np.ones((len(variants), most, longest, length), np.float32)
        for i, each in enumerate(variants):
            for j, text in enumerate(_filled(each, most)):
                for k, chunk in enumerate(found[text]):
                    weights[i, j, k, before : before + len(chunk.weights)] = chunk.weights
        arrays['weights'] = weights
        arrays['counts'] = np.stack(
            [_multiplicity(entries, each, most) for entries, each in zip(schedules, variants, strict=True)]
        )
        arrays['restore'] = np.full(
            len(variants), self.emphasis == 'original' and not self.dialect.from_empty
        )
        if self.dialect.from_empty:
            for name in chunked:
                empty = self._rows(name, [[Chunk()]], 1)[:, 0]
                arrays['empty_' + name] = np.repeat(empty, len(variants), 0)
        index = None
        if most > 1:
            index = np.stack(
                [timetable(entries, each) for entries, each in zip(schedules, variants, strict=True)]
            )
        return Texts(arrays, index, sizes, self._blank(variants), used)

    def _plain(self, texts: Sequence[str]) -> Texts:
        """Texts as the tokenizers have them, which cut what is too long."""
        arrays = {name: tokenizer(list(texts)) for name, tokenizer in self.tokenizers.items()}
        return Texts(arrays, None, [1] * len(texts), self._blank([[text] for text in texts]))

    def _blank(self, variants: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array([self.dialect.zeros and not any(text.strip() for text in each) for each in variants])

    def _rows(
        self, name: str, texts: Sequence[Sequence[Chunk]], most: int, used: Sequence[str] = ()
    ) -> np.ndarray:
        """The ids [texts, most, L] of texts in chunks, those that are missing empty.

        A vector of a learned word has the number of ids in the vocabulary, and behind it, in the order of `used`.
        """
        tokenizer = self.tokenizers[name]
        start, end, pad = tokenizer.frame()
        first = dict(zip(used, np.cumsum([0, *(self.words[word].count for word in used)]), strict=False))
        found = np.full((len(texts), most, tokenizer.context_length), pad, np.int32)
        for i, text in enumerate(texts):
            for j in range(most):
                chunk = text[j] if j < len(text) else Chunk()
                row = [*start, *chunk.ids, *end]
                found[i, j, : len(row)] = row
                for place, word in chunk.words:
                    at = place + len(start)
                    count = min(self.words[word].count, tokenizer.context_length - at)
                    found[i, j, at : at + count] = -1 - first[word] - np.arange(count)
        return found

    def _vectors(self, part: str, used: Sequence[str], batch: int) -> np.ndarray:
        """The vectors of learned words [B, W, D], W a multiple of LEARNED."""
        vectors = np.concatenate([self.words[word].vectors[part] for word in used]).astype(np.float32)
        vectors = np.pad(vectors, ((0, -len(vectors) % LEARNED), (0, 0)))
        return np.broadcast_to(vectors, (batch, *vectors.shape))


def _is_plain(chunked: Mapping[str, Mapping[str, Sequence[Chunk]]]) -> bool:
    return all(
        set(chunk.weights) <= {1.0} and not chunk.words
        for found in chunked.values()
        for made in found.values()
        for chunk in made
    )


def reader(
    tokenizers: Sequence[Tokenizer], words: Mapping[str, Word], syntax: str, emphasis: str = 'original'
) -> Reader:
    """What reads prompts in a syntax for the tokenizers of a model, in the order of its text encoders.

    Tokenizers that do not say how their rows are framed take texts as they are.
    """
    named = dict(zip(TEXT_ENCODERS.values(), tokenizers, strict=False))
    parts = {name: part for part, name in TEXT_ENCODERS.items() if name in named}
    framed = all(hasattr(tokenizer, 'frame') for tokenizer in tokenizers)
    return Reader(dialects.named(syntax if framed else 'plain'), named, parts, words, emphasis)


def framing(tokenizer: Tokenizer) -> int:
    """How many ids start and end a row."""
    start, end, _ = tokenizer.frame()
    return len(start) + len(end)


def rounded(chunks: int) -> int:
    """The number of chunks that programs have for so many. Raises ValueError for too many."""
    for size in CHUNKS:
        if chunks <= size:
            return size
    raise ValueError(
        f'A prompt of {chunks} chunks is too long: {CHUNKS[-1]} chunks, of 75 tokens in CLIP, are the most. Shorten it.'
    )


def timetable(entries: Sequence[Entry], variants: Sequence[str], size: int = EVALUATIONS) -> np.ndarray:
    """The variant at each evaluation, int32 [size]: of the first entry whose last step is no less than its number.

    Evaluations are counted from 0 and steps from 1, so that the first entry lasts one evaluation longer; past the last
    entry the first one is back. So it is in the web UI.
    """
    lasts = np.array([last for last, _ in entries])
    found = np.searchsorted(lasts, np.arange(size))
    place = np.array([variants.index(text) for _, text in entries], np.int32)
    return place[np.where(found < len(lasts), found, 0)]


def _filled(variants: Sequence[str], most: int) -> list[str]:
    return [*variants, *[variants[0]] * (most - len(variants))]


def _multiplicity(entries: Sequence[Entry], variants: Sequence[str], most: int) -> np.ndarray:
    """How many entries have each variant, float32 [most]: the web UI encodes each entry anew, in one batch."""
    found = np.zeros(most, np.float32)
    for _, text in entries:
        found[variants.index(text)] += 1
    return found


def _warn_of(asked: Sequence[str], known: Sequence[str]) -> None:
    warnings.warn(
        f'Learned words that are not there are left out: {", ".join(map(repr, asked))}; --embeddings has '
        f'{", ".join(map(repr, known[:10])) or "none"}.',
        stacklevel=4,
    )
