"""Examples encoded once and written to files: latents instead of images, embeddings instead of texts.

    out/manifest.json                          what was encoded, with which model and settings
    out/null.msgpack                           the embedding of the empty text, where texts are encoded
    out/00003-of-00016.array_record            the rows of a shard (packing.py)
    out/00003-of-00016.json                    their shapes, and the examples that could not be read

A shard appears under its name when it is whole, and is never written again: a run that was stopped goes on with the
shards that are missing, and gives the files that it would have given. What is in a shard depends on the source and the
settings, not on how many processes there are; process i of n writes the shards i, i + n, i + 2 n, ...
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from ldm_jax import atomic
from ldm_jax.data import array_record, packing, pipeline
from ldm_jax.data.corrupt import Corrupt, Report
from ldm_jax.data.order import Order
from ldm_jax.progress import Meter

MANIFEST, NULL = 'manifest.json', 'null.msgpack'

Encode = Callable[[pipeline.Batch], Mapping[str, np.ndarray]]  # a batch -> arrays [B, ...] of its rows


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Examples to encode, cut into batches and shards.

    Attributes:
        source: the examples.
        batch_size: rows that are encoded at once; a smaller batch is filled up, so that one program serves all.
        shard_size: rows of a shard; the more, the more is done again after a stop.
        views: showings of each example, each with a crop and a mirroring of its own where the source has such.
        seed: of those.
    """

    source: pipeline.Examples
    batch_size: int
    shard_size: int = 4096
    views: int = 1
    seed: int = 0

    def __post_init__(self):
        for field in ('batch_size', 'shard_size', 'views'):
            if getattr(self, field) < 1:
                raise ValueError(f'{field} must be at least 1; got {getattr(self, field)}.')
        if not self.num_rows:
            raise ValueError('The source has no examples.')

    @property
    def num_rows(self) -> int:
        return self.views * sum(map(len, pipeline.buckets(self.source)))

    @property
    def num_shards(self) -> int:
        return -(-self.num_rows // self.shard_size)

    def batches(self, shard: int) -> list[list[tuple[int, int]]]:
        """The (view, index) of the rows of each batch of a shard; a batch has examples of one bucket."""
        first, last, found = shard * self.shard_size, (shard + 1) * self.shard_size, []
        begin = 0
        for members in pipeline.buckets(self.source):
            end = begin + self.views * len(members)
            here = range(max(first, begin) - begin, min(last, end) - begin)
            pairs = [divmod(position, len(members)) for position in here]
            found += [
                [(number, int(members[i])) for number, i in pairs[start : start + self.batch_size]]
                for start in range(0, len(pairs), self.batch_size)
            ]
            begin = end
        return found

    def read(self, batch: Sequence[tuple[int, int]]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
        """The examples of a batch, with their 'key', and (name, reason) of those that cannot be read."""
        order, found, failures = Order((), self.batch_size, self.seed), [], []
        for number, i in batch:
            try:
                example = pipeline.view(self.source, i, order.rng(number, i))
                found.append(example | {'key': pipeline.name(self.source, i)})
            except Corrupt as error:
                failures.append((error.name, error.reason))
        return found, failures


def encode(
    job: Encoding,
    function: Encode,
    out: str,
    settings: Mapping[str, Any],
    *,
    null: Callable[[], Mapping[str, np.ndarray]] | None = None,
    keep: Sequence[str] = ('text', 'label', 'size', 'key'),
    process_index: int = 0,
    process_count: int = 1,
    max_corrupt: float = 0.1,
) -> Report:
    """Writes this process's shards, those that are there already left as they are.

    Args:
        function: encodes a batch of job.batch_size examples.
        out: a folder, new or of an earlier run of the same job.
        settings: JSON data that name the model and all that the rows depend on beside the job.
        null: the embedding of the empty text.
        keep: the values of an example that are written beside what function gives.
        max_corrupt: see corrupt.Report.

    Raises:
        ValueError: out is of a job with other settings; bad process_index.
        TooManyCorrupt: beyond max_corrupt.
    """
    if not 0 <= process_index < process_count:
        raise ValueError(f'process_index must be 0 .. {process_count - 1}; got {process_index}.')
    root = pathlib.Path(out)
    _agree(root, job, settings)
    if null is not None and not (root / NULL).exists():
        atomic.write(root / NULL, packing.pack(null()))
    report = Report(max_corrupt)
    mine = range(process_index, job.num_shards, process_count)
    missing = [shard for shard in mine if not shard_path(root, shard, job.num_shards).exists()]
    total, left = (sum(map(len, map(job.batches, shards))) for shards in (mine, missing))
    meter = Meter(total, 'encoding batches', done=total - left)
    try:
        for shard in missing:
            _encode_shard(job, shard, function, keep, shard_path(root, shard, job.num_shards), report, meter)
    finally:
        meter.close()
    return report


def shard_path(root: pathlib.Path, shard: int, count: int) -> pathlib.Path:
    """Path of a shard's rows."""
    return root / f'{shard:05}-of-{count:05}.array_record'


def _encode_shard(
    job: Encoding,
    shard: int,
    function: Encode,
    keep: Sequence[str],
    path: pathlib.Path,
    report: Report,
    meter: Meter,
) -> None:
    shapes, corrupt = [], {}
    with array_record.writing(path) as write:
        for examples, failures in _read_ahead(job, job.batches(shard)):
            report.add(len(examples), failures)
            corrupt |= dict(failures)
            if examples:
                filled = examples + examples[-1:] * (job.batch_size - len(examples))
                arrays = {name: np.asarray(array) for name, array in function(pipeline.stack(filled)).items()}
                for i, example in enumerate(examples):
                    write(
                        {name: example[name] for name in keep if name in example}
                        | {n: a[i] for n, a in arrays.items()}
                    )
                shapes.append(
                    [len(examples), {name: list(array.shape[1:]) for name, array in arrays.items()}]
                )
            meter.advance()
        atomic.write(path.with_suffix('.json'), json.dumps({'shapes': shapes, 'corrupt': corrupt}))


def _read_ahead(job: Encoding, batches: list[Any]) -> Iterator[Any]:
    dataset = grain.MapDataset.range(len(batches)).map(lambda n: job.read(batches[n]))
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=4)))


def _agree(root: pathlib.Path, job: Encoding, settings: Mapping[str, Any]) -> None:
    """Writes the manifest, or compares with the one that is there."""
    manifest = dict(settings) | {
        'rows': job.num_rows,
        'shards': job.num_shards,
        'shard_size': job.shard_size,
        'views': job.views,
        'seed': job.seed,
    }
    manifest = json.loads(json.dumps(manifest))
    path = root / MANIFEST
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        atomic.write(path, json.dumps(manifest, indent=2) + '\n')
    old = json.loads(path.read_text())
    changed = {
        key: (old.get(key), manifest.get(key)) for key in old | manifest if old.get(key) != manifest.get(key)
    }
    if changed:
        raise ValueError(
            f'{root} was begun with other settings (old, new): {changed}. Choose another folder, or give the old '
            'ones to go on.'
        )
