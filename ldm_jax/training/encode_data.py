"""A dataset encoded once, by a model's first stage and text encoders, for trainings that then need neither."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax.build import build
from ldm_jax.checkpoints import loading, store
from ldm_jax.conditioning import encoder
from ldm_jax.data import encoding, pipeline
from ldm_jax.images import to_float
from ldm_jax.training import unknown_words
from ldm_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Dtypes:
    """dtype: of the arrays that are written; compute_dtype: of the networks."""

    dtype: str = 'float16'
    compute_dtype: str = 'float32'


def encode(
    data: Mapping[str, Any],
    model: str,
    out: str,
    *,
    parts: Sequence[str] | None = None,
    dtypes: Dtypes = Dtypes(),
    batch_size: int = 16,
    process_index: int = 0,
    process_count: int = 1,
    max_corrupt: float = 0.1,
    **cut: int,
) -> str:
    """Encodes the examples that a folder lacks, for data.latents to read. Returns a one-line report.

    Args:
        data: spec of a data source.
        model: as checkpoints.loading.load takes it.
        parts: of the model; its first stage and all its text encoders by default.
        batch_size: a multiple of this process's devices, which share a batch.
        cut: shard_size, views and seed of encoding.Encoding.

    Raises ValueError or OSError for what the user can mend.
    """
    job = encoding.Encoding(build('data', data), batch_size, **cut)
    path = loading.resolve(model)
    stored = store.open_model(path)
    have = [part for part in stored.parts if part == 'first_stage' or part.startswith('text_encoder')]
    encoders = encoder.from_settings(stored.settings, parts or have, dtypes.compute_dtype)
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ('data',))
    if batch_size % mesh.size:
        raise ValueError(f'batch_size must be a multiple of the {mesh.size} devices; got {batch_size}.')
    shared, split = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in ((), ('data',)))
    run = jax.jit(encoders, in_shardings=(shared, split, split))
    loaded = loading.load(path, encoders.parts).params
    unknown_words.warn(job.source, encoders.tokenizers, loaded)
    params = jax.device_put(loaded, shared)

    def written(found: PyTree) -> dict[str, np.ndarray]:
        return {name: np.asarray(array.astype(dtypes.dtype)) for name, array in found.items()}

    def batch(examples: pipeline.Batch) -> dict[str, np.ndarray]:
        image = to_float(examples['image']) if 'first_stage' in encoders.modules else None
        tokens = encoders.tokens(examples['text']) if encoders.tokenizers else {}
        return written(run(params, image, tokens))

    def null() -> dict[str, np.ndarray]:
        found = written(run(params, None, encoders.tokens([''] * batch_size)))
        return {name: array[0] for name, array in found.items()}

    settings = {
        'model': model,
        'parts': {part: _digest(path, part) for part in encoders.parts},
        'settings': stored.settings,
        'data': dict(data),
        **dataclasses.asdict(dtypes),
    }
    report = encoding.encode(
        job,
        batch,
        out,
        settings,
        null=null if encoders.tokenizers else None,
        process_index=process_index,
        process_count=process_count,
        max_corrupt=max_corrupt,
    )
    return f'{report}; encoded data in {out}'


def _digest(path: str, part: str) -> str:
    """A digest of the checksums of a part's parameters."""
    table = json.loads((pathlib.Path(path) / 'checksums.json').read_text())
    entries = sorted((name, entry['crc32']) for name, entry in table.items() if name.startswith(f'{part}/'))
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()
