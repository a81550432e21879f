"""Latents and text embeddings that tools/encode_dataset.py wrote, read back as examples."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from ldm_jax.data import array_record, encoding, packing


@dataclasses.dataclass(frozen=True)
class Source:
    """Encoded examples; floating-point arrays as float32, whatever they were stored as.

    An example has moments [h, w, 2 Z] (of a KL autoencoder: means, then log variances) or latents [h, w, Z] (of
    others), neither scaled by scaling_factor; and what was encoded and kept of text, context [L, D], pooled [P], label
    and size [6].

    Args:
        path: the folder.
        only: the names to read; all by default.

    Raises:
        FileNotFoundError: no such folder, or shards are missing from it.
        ValueError: `only` has an unknown name.
    """

    path: str
    only: tuple[str, ...] = ()

    def __post_init__(self):
        missing = [path.name for path in self._shards if not path.exists()]
        if missing:
            raise FileNotFoundError(
                f'{self.path} has {len(self._shards) - len(missing)} of {len(self._shards)} shards; the first that is '
                f'missing is {missing[0]}. Run tools/encode_dataset.py again with the same settings: it goes on.'
            )
        if not len(self):
            raise ValueError(f'{self.path} holds no examples.')
        have = sorted(self._row(0))
        if unknown := set(self.only) - set(have):
            raise ValueError(f'{self.path} holds no {sorted(unknown)}; have {have}.')

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = self._row(i)
        found = {name: row[name] for name in (self.only or row) if name != 'key'}
        return {name: _float32(value) for name, value in found.items()}

    def caption(self, i: int) -> str:
        """The text of example i, where texts were kept."""
        return self._row(i)['text']

    def name(self, i: int) -> str:
        """Name of example i in the data that were encoded."""
        return self._row(i)['key']

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """Settings of the encoding: its data, model and shards."""
        path = pathlib.Path(self.path) / encoding.MANIFEST
        if not path.is_file():
            raise FileNotFoundError(
                f'No encoded data at {self.path!r}: it has no {encoding.MANIFEST}. Give the folder that '
                'tools/encode_dataset.py wrote.'
            )
        return json.loads(path.read_text())

    @functools.cached_property
    def null(self) -> dict[str, np.ndarray]:
        """context [L, D], and pooled [P] if there is one, of the empty text; nothing where no text was encoded."""
        path = pathlib.Path(self.path) / encoding.NULL
        found = packing.unpack(path.read_bytes()) if path.exists() else {}
        return {name: _float32(value) for name, value in found.items()}

    @functools.cached_property
    def buckets(self) -> list[np.ndarray]:
        """The indices of the examples of each shape."""
        found, begin = collections.defaultdict(list), 0
        for path in self._shards:
            for count, shape in json.loads(path.with_suffix('.json').read_text())['shapes']:
                found[json.dumps(shape, sort_keys=True)].append(np.arange(begin, begin + count))
                begin += count
        return [np.concatenate(parts) for parts in found.values()]

    @functools.cached_property
    def _shards(self) -> list[pathlib.Path]:
        count = self.manifest['shards']
        return [encoding.shard_path(pathlib.Path(self.path), shard, count) for shard in range(count)]

    @functools.cached_property
    def _records(self) -> Any:
        # A shard whose examples were all corrupt has no rows.
        return array_record.records(tuple(map(str, self._shards)))

    def _row(self, i: int) -> dict[str, Any]:
        return array_record.unpacked(self._records, i, self.path)


def _float32(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.name in ('float16', 'bfloat16', 'float64'):
        return value.astype(np.float32)
    return np.int32(value) if isinstance(value, int) else value
