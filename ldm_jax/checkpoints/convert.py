"""From any kind of checkpoint to any other, in bounded memory, with a report of what became of every key.

orbax       a model directory (store.py)
compvis     one safetensors file in the names of the original code
diffusers   a folder that diffusers loads as it is
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import ldm_jax
from ldm_jax import atomic
from ldm_jax.build import unknown
from ldm_jax.checkpoints import claims, store
from ldm_jax.checkpoints.apply_layout import export, export_specs
from ldm_jax.checkpoints.choice import Choice
from ldm_jax.checkpoints.diffusers import settings as diffusers_settings
from ldm_jax.checkpoints.files import reader, safetensors
from ldm_jax.checkpoints.files.tensor_file import TensorSpec
from ldm_jax.checkpoints.layouts import diffusers_folder, marks, single_file
from ldm_jax.checkpoints.layouts.rules import Layout
from ldm_jax.checkpoints.lazy_arrays import Cast, Leaves, part_of
from ldm_jax.checkpoints.open_checkpoint import Source, opened, with_part_of
from ldm_jax.progress import Meter

DTYPES = ('float32', 'bfloat16', 'float16')
Report = dict[str, Any]


def convert(
    source: str,
    destination: str,
    *,
    to: str = 'orbax',
    dtype: str | None = None,
    choice: Choice = Choice(),  # noqa: B008 (Choice is frozen)
    origin: Mapping[str, Any] | None = None,
    take: Mapping[str, str] | None = None,
) -> Report:
    """Writes a checkpoint as another kind of checkpoint; returns the report, which is also written beside it.

    Args:
        source: path of a file or folder, as `open_checkpoint.opened` takes it.
        destination: a directory (orbax, diffusers) or the name of a .safetensors file (compvis). It appears when
            it is whole. An older conversion there is replaced; anything else is an error.
        to: 'orbax', 'compvis' or 'diffusers'.
        dtype: of the floating-point parameters; that of each in the source by default.
        choice: what the source leaves open.
        origin: what else the report says of where the source is from, such as a repository's name.
        take: 'text_encoder' or 'first_stage' -> path of another checkpoint that it is taken from.

    Raises:
        ValueError, FileNotFoundError: of the source, before anything is written, or when a tensor turns out
            not to be finite; then nothing stays of what was.
        FileExistsError: something else is at the destination, or somebody is writing there.
    """
    if to not in WRITERS:
        raise unknown('kind of checkpoint', to, list(WRITERS))
    if dtype is not None and dtype not in DTYPES:
        raise unknown('dtype', dtype, list(DTYPES))
    writer = WRITERS[to](pathlib.Path(destination).absolute())
    writer.check()
    claims.check(destination)
    with opened(source, choice) as opened_source, contextlib.ExitStack() as others:
        for group, path in (take or {}).items():
            opened_source = with_part_of(opened_source, group, path, others)
        leaves = opened_source.leaves
        if dtype is not None:
            leaves = Cast(leaves, np.dtype(dtype))
        with _Reporter(source, opened_source, leaves, to, origin or {}) as reporter:
            writer.write(opened_source.settings, _Watched(leaves), reporter.report)
            return reporter.report()


@dataclasses.dataclass(frozen=True)
class _Orbax:
    path: pathlib.Path

    def check(self) -> None:
        store.check_destination(self.path)

    def write(self, settings: Mapping[str, Any], leaves: Leaves, report: Callable[[], Report]) -> None:
        store.write_model(self.path, settings, leaves, report=report)


@dataclasses.dataclass(frozen=True)
class _SingleFile:
    path: pathlib.Path

    def check(self) -> None:
        if self.path.suffix != '.safetensors':
            raise ValueError(
                f'The destination of a single file must end in .safetensors; got {self.path.name!r}. Pickles are '
                'read, not written.'
            )
        if self.path.exists() and not self._is_ours():
            raise FileExistsError(f'{self.path} exists, and was not converted; choose another name.')
        if self._report.exists() and not _is_report(self._report):
            raise FileExistsError(f'{self._report} exists, and is no report; choose another name.')

    def write(self, settings: Mapping[str, Any], leaves: Leaves, report: Callable[[], Report]) -> None:
        layout, flags = single_file.layout(settings), marks.tensors(settings)
        specs = export_specs(layout, leaves)
        specs |= {key: TensorSpec(array.shape, array.dtype) for key, array in flags.items()}
        found = {}

        def arrays() -> Iterator[tuple[str, np.ndarray]]:
            yield from flags.items()
            yield from export(layout, leaves)
            found.update(report())  # before the file has its name: if this fails, nothing stays

        with claims.claimed(self.path):
            safetensors.write(self.path, specs, arrays(), single_file_metadata(settings))
            _write_json(self._report, found)

    @property
    def _report(self) -> pathlib.Path:
        return self.path.with_name(f'{self.path.stem}.{store.REPORT}')

    def _is_ours(self) -> bool:
        with contextlib.suppress(reader.BadFile), reader.open_file(self.path) as tensors:
            return store.SETTINGS in tensors.metadata
        return False


@dataclasses.dataclass(frozen=True)
class _Folder:
    path: pathlib.Path

    def check(self) -> None:
        if self.path.exists() and not _is_report(self.path / store.REPORT):
            raise FileExistsError(f'{self.path} exists, and was not converted; choose another path.')

    def write(self, settings: Mapping[str, Any], leaves: Leaves, report: Callable[[], Report]) -> None:
        layout = diffusers_folder.layout(settings)
        specs = export_specs(layout, leaves)
        with claims.claimed(self.path), atomic.atomic_folder(self.path) as partial:
            lacks = diffusers_settings.write_settings(settings, partial)
            for folder in dict.fromkeys(map(_folder_of, specs)):
                rules = tuple(rule for rule in layout.rules if _folder_of(rule.torch[0]) == folder)
                one = Layout(rules)
                paths = {path for rule in rules for path in rule.flax}
                part = _Named(leaves, {path: spec for path, spec in leaves.specs.items() if path in paths})
                place = partial / folder / _weights_name(settings, part_of(rules[0].flax[0]))
                place.parent.mkdir(exist_ok=True)
                start = len(folder) + 1 if folder else 0
                safetensors.write(
                    place,
                    {key[start:]: spec for key, spec in specs.items() if _folder_of(key) == folder},
                    ((key[start:], array) for key, array in export(one, part)),
                    {'format': 'pt'},
                )
            found = report()
            _write_json(partial / store.REPORT, found | ({'lacks': list(lacks)} if lacks else {}))


WRITERS: dict[str, Any] = {'orbax': _Orbax, 'compvis': _SingleFile, 'diffusers': _Folder}


def single_file_metadata(settings: Mapping[str, Any]) -> dict[str, str]:
    """What a safetensors file says of itself: to other programs its prediction type, to this one all settings.

    Ref: Stability AI's ModelSpec 1.0.0.
    """
    kinds = {'eps': 'epsilon', 'v': 'v'}
    found = {'format': 'pt', 'modelspec.sai_model_spec': '1.0.0', store.SETTINGS: json.dumps(dict(settings))}
    if settings.get('parameterization') in kinds:
        found['modelspec.prediction_type'] = kinds[settings['parameterization']]
    return found


@dataclasses.dataclass(frozen=True)
class _Named:
    """Leaves with only some of their specs."""

    leaves: Leaves
    specs: Mapping[str, TensorSpec]

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        return self.leaves.read(paths)


class _Watched:
    """Leaves that show how much of them has been read."""

    def __init__(self, leaves: Leaves):
        self._leaves = leaves
        self.specs = leaves.specs
        self._left = sum(spec.nbytes for spec in leaves.specs.values())
        self._meter = Meter(max(1, self._left // 2**20), 'converting', unit='MB')

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        arrays = self._leaves.read(paths)
        before = self._left
        self._left -= sum(array.nbytes for array in arrays.values())
        self._meter.advance(before // 2**20 - self._left // 2**20)
        if self._left <= 0:
            self._meter.close()
        return arrays


class _Reporter(contextlib.AbstractContextManager):
    """The report of a conversion; the source's digests are made beside it, as reading them all takes seconds."""

    def __init__(self, path: str, source: Source, leaves: Leaves, to: str, origin: Mapping[str, Any]):
        self._path, self._source, self._leaves, self._to, self._origin = path, source, leaves, to, origin
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._digests = self._pool.submit(source.digests)

    def __exit__(self, *exception) -> None:
        self._pool.shutdown()

    def report(self) -> Report:
        ignored = collections.defaultdict(list)
        for key, reason in self._source.ignored.items():
            ignored[reason].append(key)
        return {
            'source': {
                'name': pathlib.Path(self._path).name,  # a model does not tell where it was written
                'kind': self._source.kind,
                'sha256': self._digests.result(),
                **self._source.notes,
                **self._origin,
            },
            'to': self._to,
            'parts': _counted(self._leaves.specs),
            'ignored': {reason: sorted(keys) for reason, keys in ignored.items()},
            'ldm_jax': ldm_jax.__version__,
        }


def _counted(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """part -> parameters, arrays, and how many arrays there are of each dtype."""
    parts: dict[str, Any] = {}
    for path, spec in specs.items():
        entry = parts.setdefault(part_of(path), {'parameters': 0, 'arrays': 0, 'dtypes': {}})
        entry['parameters'] += spec.nbytes // spec.dtype.itemsize
        entry['arrays'] += 1
        entry['dtypes'][str(spec.dtype)] = entry['dtypes'].get(str(spec.dtype), 0) + 1
    return parts


def _folder_of(key: str) -> str:
    """'unet' of 'unet/conv_in.weight'; '' in a folder of one model."""
    return key.partition('/')[0] if '/' in key else ''


def _weights_name(settings: Mapping[str, Any], part: str) -> str:
    """The name of a part's file: transformers and diffusers each look for their own."""
    is_transformer = settings['models'][part]['name'] in ('clip_text', 'clip_vision', 'bert')
    return ('model' if is_transformer else 'diffusion_pytorch_model') + '.safetensors'


def _is_report(path: pathlib.Path) -> bool:
    """Whether a file is a report of ours; anybody may have one of that name."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        return isinstance(found, dict) and 'ldm_jax' in found
    return False


def _write_json(path: pathlib.Path, data: Any) -> None:
    atomic.write(path, json.dumps(data, indent=2) + '\n', alone=True)  # while the destination is claimed


def lines(report: Report) -> Iterator[str]:
    """A report for people: a line a part, and what was left out."""
    source = report['source']
    yield f'{source["kind"]} {source["name"]} -> {report["to"]}'
    for part, entry in report['parts'].items():
        dtypes = ', '.join(f'{count} {dtype}' for dtype, count in entry['dtypes'].items())
        yield f'  {part}: {entry["parameters"]:,} parameters in {entry["arrays"]} arrays ({dtypes})'
    for reason, keys in report['ignored'].items():
        more = f' and {len(keys) - 1} more' if len(keys) > 1 else ''
        yield f'  left out: {keys[0]}{more}: {reason}'
    if 'ema' in source:
        yield f'  moving averages: {source["ema"]}; taken: {source["weights"]} weights'
    if source.get('refused'):
        yield f'  not imported from the pickle, inert: {", ".join(source["refused"][:5])}'
