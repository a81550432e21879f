"""WebDataset tar shards, as img2dataset writes LAION: 00000.tar with key.jpg, key.txt and key.json for each sample."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import tarfile
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from ldm_jax import text_files
from ldm_jax.data import folders, index, rows, transforms
from ldm_jax.data.corrupt import Corrupt
from ldm_jax.progress import progress

log = logging.getLogger(__name__)

INDEX = 'tar_samples'  # in the cache folder
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
    def samples(self) -> Samples:
        """All samples of the shards."""
        keys = {shard: index.stamp([shard]) for shard in self.shards}
        new = [shard for shard in self.shards if not index.place(INDEX, keys[shard], '.npz').exists()]
        for shard in progress(new, len(new), 'indexing shards'):
            index.arrays(INDEX, keys[shard], functools.partial(_index, shard))
        return Samples.joined(
            [index.arrays(INDEX, keys[shard], functools.partial(_index, shard)) for shard in self.shards]
        )

    @functools.cached_property
    def _images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the samples with an image: their numbers, the number of the file it is in, and how many they have."""
        samples = self.samples
        wanted = (
            [self.image.encode()] if self.image else [suffix[1:].encode() for suffix in transforms.SUFFIXES]
        )
        found = np.flatnonzero(np.isin(samples.suffix, wanted))
        numbers, first, counts = np.unique(samples.owner[found], return_index=True, return_counts=True)
        return numbers, found[first], counts

    def check(self, path: Any) -> None:
        """Warns of what is left out or unclear. Raises ValueError when no sample has an image."""
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


@dataclasses.dataclass(frozen=True)
class Samples:
    """Where the files of N samples are; M files in all.

    Attributes:
        key, shard: of each sample, [N].
        first: the number of each sample's first file, and at the end M, [N + 1].
        suffix, offset, size: of each file, [M].
        twice, hidden: names of files that were there twice, and of those that are hidden.
    """

    key: np.ndarray
    shard: np.ndarray
    first: np.ndarray
    suffix: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    twice: np.ndarray
    hidden: np.ndarray

    @classmethod
    def joined(cls, shards: Sequence[dict[str, np.ndarray]]) -> Samples:
        """Those of several shards, as `_index` has them."""
        base = [0, *np.cumsum([len(one['suffix']) for one in shards])]
        first = [one['first'][:-1] + begin for one, begin in zip(shards, base, strict=False)] + [base[-1:]]
        names = ('key', 'suffix', 'offset', 'size', 'twice', 'hidden')
        return cls(
            shard=np.repeat(np.arange(len(shards)), [len(one['key']) for one in shards]),
            first=np.concatenate(first),
            **{name: np.concatenate([one[name] for one in shards]) for name in names},
        )

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """The sample of each file [M]."""
        return np.repeat(np.arange(len(self.key)), np.diff(self.first))

    def place(self, file: int) -> tuple[int, int]:
        """(offset, size) of a file in its shard."""
        return int(self.offset[file]), int(self.size[file])

    def files(self, number: int) -> dict[str, tuple[int, int]]:
        """suffix -> place of the files of a sample."""
        return {self.suffix[i].decode(): self.place(i) for i in range(*self.first[number : number + 2])}


def _slice(shard, place: tuple[int, int]) -> bytes:
    return os.pread(shard.fileno(), place[1], place[0])


def _index(shard: str) -> dict[str, np.ndarray]:
    """The samples of a shard, as in Samples, names as bytes."""
    samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
    latest: dict[str, dict[str, tuple[int, int]]] = {}
    twice, hidden = [], []
    try:
        with tarfile.open(shard, 'r:') as archive:  # uncompressed only: others have no random access
            for member in archive:
                folder, slash, base = member.name.removeprefix('./').rpartition('/')
                name, _, suffix = base.partition('.')
                key, suffix = f'{folder}{slash}{name}', suffix.lower()
                if not member.isreg():
                    continue
                if not name:
                    hidden.append(member.name)
                    continue
                if key in latest and suffix in latest[key]:
                    twice.append(f'{shard}/{member.name}')
                    del latest[key]
                if key not in latest:
                    latest[key] = {}
                    samples.append((key, latest[key]))
                latest[key][suffix] = member.offset_data, member.size
    except tarfile.TarError as error:
        raise ValueError(
            f'{shard} is no uncompressed tar file, or is cut off ({error}). Decompress it, fetch it again or leave it '
            'out.'
        ) from None
    entries = [(suffix, *place) for _, files in samples for suffix, place in files.items()]
    return {
        'key': _names(key for key, _ in samples),
        'first': np.cumsum([0, *(len(files) for _, files in samples)]),
        'suffix': _names(suffix for suffix, _, _ in entries),
        'offset': np.array([offset for _, offset, _ in entries], np.int64),
        'size': np.array([size for _, _, size in entries], np.int64),
        'twice': _names(twice),
        'hidden': _names(hidden),
    }


def _names(names: Iterable[str]) -> np.ndarray:
    return np.array([name.encode() for name in names], np.bytes_)
