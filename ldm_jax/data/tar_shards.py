"""Index of the files of WebDataset samples in tar shards.

It takes a pass over each shard, whose result is kept in the cache folder for as long as the shard stays.
"""

from __future__ import annotations

import dataclasses
import functools
import tarfile
from collections.abc import Iterable, Sequence

import numpy as np

from ldm_jax.data import index
from ldm_jax.progress import progress

INDEX = 'tar_samples'  # in the cache folder


@dataclasses.dataclass(frozen=True)
class Samples:
    """Places of the files of N samples; M files in all.

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
        """Joins the samples of several shards, as `find` gives them."""
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


def samples(shards: Sequence[str]) -> Samples:
    """The samples of shards; those that are new are gone through."""
    keys = {shard: index.stamp([shard]) for shard in shards}
    new = [shard for shard in shards if not index.place(INDEX, keys[shard], '.npz').exists()]
    for shard in progress(new, len(new), 'indexing shards'):
        index.arrays(INDEX, keys[shard], functools.partial(find, shard))
    return Samples.joined(
        [index.arrays(INDEX, keys[shard], functools.partial(find, shard)) for shard in shards]
    )


def find(shard: str) -> dict[str, np.ndarray]:
    """The samples of a shard, as in Samples, names as bytes. Raises ValueError when it is no tar file."""
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
