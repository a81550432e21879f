"""Metrics of a folder or zip of images: rows are kept batch by batch, so that a run that was killed goes on.

OUT/run.json        what the rows depend on; another run is not mixed in
OUT/rows/           the rows of each batch, by set and first number
OUT/result.json     numbers, counts, and everything that they depended on
"""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import ldm_jax
from ldm_jax import atomic, build
from ldm_jax.data.corrupt import Corrupt
from ldm_jax.data.image_folder import Source
from ldm_jax.evaluation import bootstrap, fid
from ldm_jax.evaluation.batch import Batch
from ldm_jax.evaluation.networks import Networks
from ldm_jax.progress import progress
from ldm_jax.types import Metric

GENERATED, REFERENCE = 'images', 'references'


def evaluate(
    images: str,
    references: str | None,
    metrics: Mapping[str, Metric],
    networks: Networks,
    out: str,
    *,
    num_images: int | None = None,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Measures a set of images; the report is also OUT/result.json.

    Args:
        images: a folder or zip, in the order of names or of its metadata, whose captions are the texts.
        references: another one, which metrics of sets and of pairs need; pairs are of one place in both.
        metrics: by the text that names them.
        out: the folder of results; a run that was stopped goes on there.
        num_images: the first ones of both; all by default.

    Raises ValueError, before any image is read, for a missing network or reference and for results of another run.
    """
    kinds = {metric.against for metric in metrics.values()}
    for name, metric in metrics.items():
        networks.check(metric.networks, name)
        if metric.against in ('set', 'pair') and references is None:
            raise ValueError(f'{name} compares with reference images; give --data FOLDER_OR_ZIP.')
    sets = {GENERATED: images} | ({} if references is None else {REFERENCE: references})
    opened = {
        side: Source(path, text='{caption}' if side == GENERATED and 'text' in kinds else '')
        for side, path in sets.items()
    }
    counts = {side: min(len(source), num_images or len(source)) for side, source in opened.items()}
    if 'pair' in kinds and len(set(counts.values())) > 1:
        raise ValueError(f'Pairs need as many references as images; there are {counts}.')
    parts = sorted({part for metric in metrics.values() for part in metric.networks})
    described = dict(
        version=ldm_jax.__version__,
        metrics={name: repr(metric) for name, metric in metrics.items()},
        protocols=_protocols(metrics),
        networks={part: networks.hash(part) for part in parts},
        batch_size=batch_size,
        sets={
            side: dict(path=str(path), count=counts[side], stamp=_stamp(opened[side]))
            for side, path in sets.items()
        },
    )
    folder = pathlib.Path(out)
    _claim(folder, described)
    states: dict[str, dict[str, Any]] = {}
    skipped: dict[str, list[str]] = {}
    for side, source in opened.items():
        wanted = {name: m for name, m in metrics.items() if side == GENERATED or m.against == 'set'}
        states[side] = {name: metric.init() for name, metric in wanted.items()}
        skipped[side] = []
        if not wanted:
            continue
        starts = range(0, counts[side], batch_size)
        for start in progress(starts, len(starts), f'batches of {side}'):
            numbers = range(start, min(start + batch_size, counts[side]))
            file = folder / 'rows' / f'{side}-{start:08d}.npz'
            if not file.exists():
                _write(file, wanted, source, opened.get(REFERENCE), numbers, networks)
            with np.load(file) as kept:
                skipped[side] += kept['skipped'].tolist()
                for name, metric in wanted.items():
                    rows = kept[f'rows {name}'], kept['numbers']
                    states[side][name] = (
                        metric.update(states[side][name], *rows) if len(rows[1]) else states[side][name]
                    )
    numbers_of = {
        name: metric.result(states[GENERATED][name], states.get(REFERENCE, {}).get(name))
        for name, metric in metrics.items()
    }
    for name, values in numbers_of.items():
        scores: Any = getattr(states[GENERATED][name], 'rows', None)
        if (
            scores is not None and scores.shape[1] == 1 and len(scores) > 1
        ):  # scores of images, whose mean it is
            low, high = bootstrap.interval(scores[:, 0])
            (key,) = list(values)
            values |= {f'{key}_low': low, f'{key}_high': high}
    used = {side: counts[side] - len(names) for side, names in skipped.items()}
    report = dict(
        numbers=numbers_of, counts=used, skipped=skipped, warnings=_warnings(metrics, used), **described
    )
    atomic.write(folder / 'result.json', json.dumps(report, indent=2) + '\n')
    return report


def _write(
    file: pathlib.Path,
    metrics: Mapping[str, Metric],
    source: Source,
    references: Source | None,
    numbers: Sequence[int],
    networks: Networks,
) -> None:
    """Writes the rows of a batch, whole or not at all; images that cannot be read are left out and named."""
    pairs = any(metric.against == 'pair' for metric in metrics.values())
    examples, bad = [], []
    for number in numbers:
        try:
            example = source[number]
            other = references[number]['image'] if pairs else None
            examples.append((number, example['image'], other, example.get('text')))
        except Corrupt as error:
            bad.append(f'{error.name}: {error.reason}')
    rows: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    kept: list[int] = []
    for group in _of_one_shape(examples):
        found, images, others, texts = zip(*group, strict=True)
        batch = Batch(
            np.stack(images), np.asarray(found), networks, np.stack(others) if pairs else None, texts
        )
        kept += found
        for name, metric in metrics.items():
            rows[name].append(np.asarray(metric.rows(batch)))
    arrays = {
        f'rows {name}': np.concatenate(each) if each else np.zeros((0, 0)) for name, each in rows.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.atomic_write(file) as partial, open(partial, 'wb') as stream:
        np.savez(stream, numbers=np.asarray(kept, np.int64), skipped=np.asarray(bad, str), **arrays)


def _of_one_shape(examples: list[tuple]) -> Iterator[list[tuple]]:
    """Examples in groups whose images have one shape."""

    def shape(example):
        return example[1].shape

    for _, group in itertools.groupby(sorted(examples, key=shape), key=shape):
        yield list(group)


def _claim(folder: pathlib.Path, described: Mapping[str, Any]) -> None:
    """Notes what the rows of a folder depend on. Raises ValueError where another run's are there."""
    file = folder / 'run.json'
    text = json.dumps(described, indent=2) + '\n'
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write(file, text)
        return
    before = json.loads(file.read_text())
    now = json.loads(text)
    if changed := [key for key in now if before.get(key) != now[key]]:
        raise ValueError(
            f'{folder} has rows of a run with another {", ".join(changed)}; numbers of two are not mixed. '
            'Give another --out, or remove that folder.'
        )


def _protocols(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Protocol -> resize, for those that metrics name."""
    named = (getattr(metric, 'protocol', None) for metric in metrics.values())
    used = sorted({name for name in named if name})
    return {name: build.component('evaluation.protocols', name).resize for name in used}


def _stamp(source: Source) -> str:
    return hashlib.sha256(repr(source.stamp).encode()).hexdigest()[:16]


def _warnings(metrics: Mapping[str, Metric], counts: Mapping[str, int]) -> list[str]:
    if counts[GENERATED] >= fid.FEW or not any(isinstance(metric, fid.Metric) for metric in metrics.values()):
        return []
    return [
        f'FID of {counts[GENERATED]} images: below {fid.FEW} its bias is larger than most differences; compare it only '
        'with an FID of as many.'
    ]
