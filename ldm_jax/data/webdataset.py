"""WebDataset tar shards, as img2dataset writes LAION: 00000.tar with key.jpg, key.txt and key.json for each sample."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import tarfile
from collections.abc import Collection, Sequence

import numpy as np

from ldm_jax.data import index, rows, transforms
from ldm_jax.data.corrupt import Corrupt
from ldm_jax.progress import progress

TEXTS = ('txt', 'text', 'caption', 'cls')


@dataclasses.dataclass(frozen=True)
class Source:
    """Samples of tar shards as dict(image=uint8 [S, S, 3], text=str), with label=int32 [] if asked for.

    A sample is the neighbouring files of a shard that share their path up to the first dot of the name. Its fields
    are key, those of key.json, and txt, text, caption and cls (the contents of files so named); caption is txt where
    there is one. Samples without an image are left out; one that lacks a field of the text is skipped as corrupt.

    Where each file lies in its shard is found once, by a pass over the shard, and kept in the cache folder
    (LDM_JAX_CACHE): any example is read directly, so shards need no shuffling, and hosts share them by index.

    Args:
        path: a shard, a folder of them, a pattern ('laion/*.tar', 'laion/{00000..00041}.tar'), or several.
        image_size, text, label: as for image_folder; a label is a whole number, such as cls.

    Raises:
        FileNotFoundError: no such shard.
        ValueError: not a tar file; no samples with images; the first 100 samples all lack a field.
    """

    path: str | tuple[str, ...]
    image_size: int | None = None
    text: str | tuple[str, ...] = '{caption}'
    label: str = ''

    def __post_init__(self):
        rows.check(self, 100, 'Fields are of key.json, key.txt and key.cls.')

    @functools.cached_property
    def table(self) -> Table:
        return Table(tuple(index.files(self.path, ('.tar',))))

    __len__ = rows.length
    __getitem__ = rows.example
    caption = rows.caption
    name = rows.name
    shape = rows.shape

    @property
    def stamp(self) -> str:
        """Changes when a shard does."""
        return index.stamp(self.table.shards)


@dataclasses.dataclass(frozen=True)
class Table:
    """The samples of all shards."""

    shards: tuple[str, ...]

    @functools.cached_property
    def _samples(self) -> dict[str, np.ndarray]:
        """key [N], shard [N], files [N + 1] (sample i has those from files[i] on); suffix, offset, size [M]."""
        keys = {shard: index.stamp([shard]) for shard in self.shards}
        new = [shard for shard in self.shards if not index.place('tar', keys[shard], '.npz').exists()]
        for shard in progress(new, len(new), 'indexing shards'):
            index.arrays('tar', keys[shard], functools.partial(_index, shard))
        found = [index.arrays('tar', keys[shard], functools.partial(_index, shard)) for shard in self.shards]
        counts = [0, *np.cumsum([len(one['suffix']) for one in found])]
        return {
            'key': np.concatenate([one['key'] for one in found]),
            'shard': np.repeat(np.arange(len(found)), [len(one['key']) for one in found]),
            'files': np.concatenate(
                [one['files'][:-1] + base for one, base in zip(found, counts, strict=False)] + [counts[-1:]]
            ),
        } | {name: np.concatenate([one[name] for one in found]) for name in ('suffix', 'offset', 'size')}

    def __len__(self) -> int:
        return len(self._samples['key'])

    def name(self, row: int) -> str:
        return f'{self.shards[self._samples["shard"][row]]}/{self._samples["key"][row].decode()}'

    def columns(self, row: int) -> Collection[str]:
        return self.fields(row).keys()

    def fields(self, row: int) -> rows.Fields:
        files = self._files(row)
        with open(self._shard(row), 'rb') as shard:
            fields = {'key': self._samples['key'][row].decode()}
            if 'json' in files:
                try:
                    fields |= json.loads(_slice(shard, files['json']))
                except (ValueError, TypeError) as error:
                    raise Corrupt(self.name(row), f'its json is broken: {error}') from None
            texts = {name: _slice(shard, files[name]) for name in TEXTS if name in files}
        fields |= {name: data.decode(errors='replace').strip() for name, data in texts.items()}
        if 'txt' in fields:
            fields['caption'] = fields['txt']
        return {name: value for name, value in fields.items() if value is not None}

    def read(self, row: int) -> tuple[bytes, rows.Fields]:
        files = self._files(row)
        image = next(files[suffix] for suffix in files if f'.{suffix}' in transforms.SUFFIXES)
        with open(self._shard(row), 'rb') as shard:
            data = _slice(shard, image)
        return data, self.fields(row)

    def classes(self, field: str) -> None:
        return None

    def _shard(self, row: int) -> str:
        return self.shards[self._samples['shard'][row]]

    def _files(self, row: int) -> dict[str, tuple[int, int]]:
        """suffix -> (offset, size) of the files of a sample."""
        s = self._samples
        first, last = s['files'][row : row + 2]
        return {s['suffix'][i].decode(): (int(s['offset'][i]), int(s['size'][i])) for i in range(first, last)}


def _slice(shard, place: tuple[int, int]) -> bytes:
    return os.pread(shard.fileno(), place[1], place[0])


def _index(shard: str) -> dict[str, np.ndarray]:
    """The samples of a shard that have an image, as in Table._samples, keys and suffixes as bytes."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard, 'r:') as archive:  # uncompressed only: others have no random access
            for member in archive:
                folder, slash, base = member.name.removeprefix('./').rpartition('/')
                key, _, suffix = base.partition('.')
                if member.isreg() and key:
                    files = samples.setdefault(f'{folder}{slash}{key}', {})
                    files[suffix.lower()] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ValueError(
            f'{shard} is no uncompressed tar file, or is cut off ({error}). Decompress it, fetch it again or leave it '
            'out.'
        ) from None
    imaged = {key: files for key, files in samples.items() if _images(files)}
    entries = [(suffix, *place) for files in imaged.values() for suffix, place in files.items()]
    return {
        'key': np.array([key.encode() for key in imaged], np.bytes_),
        'files': np.cumsum([0, *map(len, imaged.values())]),
        'suffix': np.array([suffix.encode() for suffix, _, _ in entries], np.bytes_),
        'offset': np.array([offset for _, offset, _ in entries], np.int64),
        'size': np.array([size for _, _, size in entries], np.int64),
    }


def _images(suffixes: Sequence[str]) -> list[str]:
    return [suffix for suffix in suffixes if f'.{suffix}' in transforms.SUFFIXES]
