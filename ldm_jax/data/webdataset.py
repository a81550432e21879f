"""WebDataset tar shards, as img2dataset writes LAION: 00000.tar with key.jpg, key.txt and key.json for each sample."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
from collections.abc import Collection
from typing import Any

import numpy as np

from ldm_jax import text_files
from ldm_jax.data import folders, index, rows, tar_shards, transforms
from ldm_jax.data.corrupt import Corrupt

log = logging.getLogger(__name__)

TEXTS = ('txt', 'text', 'caption', 'cls')


@dataclasses.dataclass(frozen=True)
class Source:
    """Samples of tar shards as dict(image=uint8 [S, S, 3], text=str), with label=int32 [] if asked for.

    A sample is the files of a shard that share their path up to the first dot of the name. Its fields are key, those
    of key.json, and txt, text, caption and cls (the contents of files so named); caption is txt where there is one. A
    sample that lacks a field of the text, or has a broken one, is skipped as corrupt. Samples without an image are left
    out. Where a file of a sample is there twice, a second sample of that name begins. A warning counts and names both.

    Where each file lies in its shard is found once, by a pass over the shard, and kept in the cache folder
    (LDM_JAX_CACHE): any example is read directly, so shards need no shuffling, and hosts share them by index.

    Args:
        path: a shard, a folder of them, a pattern ('laion/*.tar', 'laion/{00000..00041}.tar'), or several.
        image_size, text, label: as for image_folder; a label is a whole number, such as cls.
        image: the suffix of the images, such as 'input.png'; the first known one of a sample by default.

    Raises:
        FileNotFoundError: no such shard.
        ValueError: not a tar file; no samples with images; the first 100 samples all lack a field.
    """

    path: str | tuple[str, ...]
    image_size: int | None = None
    text: str | tuple[str, ...] = '{caption}'
    label: str = ''
    image: str = ''

    def __post_init__(self):
        self.table.check(self.path)
        rows.check(self, 100, 'Fields are of key.json, key.txt and key.cls.')

    @functools.cached_property
    def table(self) -> Table:
        return Table(tuple(index.files(self.path, ('.tar',))), self.image)

    __len__ = rows.length
    __getitem__ = rows.example
    view = rows.view
    caption = rows.caption
    captions = rows.all_captions
    name = rows.name
    shape = rows.shape

    @property
    def stamp(self) -> str:
        """Changes when a shard does."""
        return index.stamp(self.table.shards)


@dataclasses.dataclass(frozen=True)
class Table:
    """The samples of all shards that have an image."""

    shards: tuple[str, ...]
    image: str = ''  # the suffix that was asked for

    @functools.cached_property
    def samples(self) -> tar_shards.Samples:
        """All samples of the shards."""
        return tar_shards.samples(self.shards)

    @functools.cached_property
    def _images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of the samples with an image, of the file that it is in, and how many images each has."""
        samples = self.samples
        wanted = (
            [self.image.encode()] if self.image else [suffix[1:].encode() for suffix in transforms.SUFFIXES]
        )
        found = np.flatnonzero(np.isin(samples.suffix, wanted))
        numbers, first, counts = np.unique(samples.owner[found], return_index=True, return_counts=True)
        return numbers, found[first], counts

    def check(self, path: Any) -> None:
        """Warns of files that are left out or unclear. Raises ValueError when no sample has an image."""
        samples, (numbers, _, counts) = self.samples, self._images
        if not len(numbers):
            suffixes, times = np.unique(samples.suffix, return_counts=True)
            found = ', '.join(f'{s.decode()!r} ({n})' for s, n in zip(suffixes, times, strict=True)) or 'none'
            raise ValueError(
                f'{path} holds no images{f" {self.image!r}" if self.image else ""}; the suffixes are {found}. Say by '
                "image= which of them is the image, such as image='input.png'."
            )
        without = np.setdiff1d(np.arange(len(samples.key)), numbers)
        left_out = {
            'hidden files': [name.decode() for name in samples.hidden],
            'samples without an image': [self._sample(number) for number in without],
        }
        if any(left_out.values()):
            log.warning('%s: left out %s.', path, folders.counted({k: v for k, v in left_out.items() if v}))
        if len(samples.twice):
            names = {'files that are there twice': [name.decode() for name in samples.twice]}
            log.warning('%s: %s; each begins a sample of its own.', path, folders.counted(names))
        if (counts > 1).any():
            names = {'samples with several images': [self._sample(number) for number in numbers[counts > 1]]}
            log.warning('%s: %s; the first is taken, image= says which.', path, folders.counted(names))

    def __len__(self) -> int:
        return len(self._images[0])

    def name(self, row: int) -> str:
        return self._sample(self._images[0][row])

    def columns(self, row: int) -> Collection[str]:
        return self.fields(row).keys()

    def fields(self, row: int) -> rows.Fields:
        number = self._images[0][row]
        files = self.samples.files(number)
        with open(self._shard(row), 'rb') as shard:
            read = {name: _slice(shard, files[name]) for name in ('json', *TEXTS) if name in files}
        texts = {name: self._text(row, name, data) for name, data in read.items()}
        fields = {'key': self.samples.key[number].decode()} | self._json(row, texts.pop('json', '{}'))
        fields |= {name: text.strip() for name, text in texts.items()}
        if 'txt' in fields:
            fields['caption'] = fields['txt']
        return {name: value for name, value in fields.items() if value is not None}

    def read(self, row: int) -> tuple[bytes, rows.Fields]:
        file = self._images[1][row]
        with open(self._shard(row), 'rb') as shard:
            data = _slice(shard, self.samples.place(file))
        return data, self.fields(row)

    def classes(self, field: str) -> None:
        return None

    def _shard(self, row: int) -> str:
        return self.shards[self.samples.shard[self._images[0][row]]]

    def _sample(self, number: int) -> str:
        return f'{self.shards[self.samples.shard[number]]}/{self.samples.key[number].decode()}'

    def _text(self, row: int, suffix: str, data: bytes) -> str:
        try:
            return text_files.decode(data)
        except text_files.NotText as error:
            raise Corrupt(f'{self.name(row)}.{suffix}', str(error)) from None

    def _json(self, row: int, text: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Corrupt(self.name(row), f'its json is broken: {error}') from None
        if not isinstance(found, dict):
            raise Corrupt(self.name(row), f'its json is no object: {text[:100]}')
        return found


def _slice(shard, place: tuple[int, int]) -> bytes:
    return os.pread(shard.fileno(), place[1], place[0])
