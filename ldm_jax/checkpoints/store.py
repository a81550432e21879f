"""Models on disk: one directory with the parameters of each part, what builds them, and a checksum for each array.

    model/settings.json     the schema of a config: what builds the parts, and how they work together
    model/checksums.json    '<part>/<path>' -> shape, dtype and CRC-32 of every array
    model/report.json       where the parameters came from, if they were converted
    model/unet/ ...         one Orbax tree a part, loadable alone

A directory appears under its name only when it is whole; what a killed process leaves beside it ends in
'.ldm_jax-partial' or '.ldm_jax-old', and the next one to write there cleans up. Neither Orbax nor the formats
below it notice a flipped bit; the checksums do, and name the array.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.resources
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes  # noqa: F401 (so that numpy knows 'bfloat16' by name)
import numpy as np

from ldm_jax import trees
from ldm_jax.atomic import atomic_folder
from ldm_jax.build import unknown
from ldm_jax.checkpoints.files.tensor_file import TensorSpec
from ldm_jax.checkpoints.layouts.rules import unflatten
from ldm_jax.checkpoints.lazy_arrays import Arrays, Cast, Leaves, Only, contiguous, is_float, part_of, windows
from ldm_jax.types import PyTree

SETTINGS, CHECKSUMS, REPORT = 'settings.json', 'checksums.json', 'report.json'
RENAMED = {'latent_scale': 'scaling_factor'}  # settings of older model directories -> as they are called now

Shardings = Callable[[str, jax.ShapeDtypeStruct], jax.sharding.Sharding]


class Damaged(ValueError):
    """A stored array is not what was written."""


def save_model(
    path: str, settings: Mapping[str, Any], params: Mapping[str, PyTree], dtype: str = 'float32'
) -> None:
    """Writes a model directory, compressed.

    Args:
        path: of the directory to make. An older model there is replaced once the new one is whole.
        settings: plain JSON data.
        params: part -> parameter tree.
        dtype: of the floating-point leaves on disk; float16 halves the size and keeps 11 bits.

    Raises FileExistsError when something other than a model is at the path.
    """
    arrays = {
        f'{part}/{name}': leaf for part, tree in params.items() for name, leaf in trees.named(tree).items()
    }
    write_model(path, settings, Cast(Arrays(arrays), np.dtype(dtype)), compress=True)


def write_model(
    path: str,
    settings: Mapping[str, Any],
    leaves: Leaves,
    *,
    report: Callable[[], Mapping[str, Any]] | None = None,
    compress: bool = False,
) -> None:
    """Writes a model directory from leaves '<part>/<path>', which are read in windows of bounded size.

    Args:
        report: called once all leaves have been read; what it returns is kept beside them.
        compress: zstd; trained weights shrink by a tenth or less, and take several times longer.

    Raises FileExistsError when something other than a model is at the path.
    """
    target = check_destination(path)
    text = json.dumps(dict(settings), indent=2) + '\n'  # first, so that what JSON cannot hold fails at once
    checksums: dict[str, dict[str, Any]] = {}
    with atomic_folder(target) as partial:
        for part in dict.fromkeys(map(part_of, leaves.specs)):
            only = Only(leaves, (part,))
            with _orbax(compress) as ocp:
                for paths in windows(only.specs):
                    arrays = {name: contiguous(array) for name, array in only.read(paths).items()}
                    checksums |= {name: _checksum(array) for name, array in arrays.items()}
                    ocp.partial.save(partial / part, unflatten(arrays)[part])
                ocp.partial.finalize(partial / part)
            # Orbax's own mark of a whole tree names the folder it was written to; ours is the directory's name.
            (partial / part / 'commit_success.txt').unlink(missing_ok=True)
        (partial / CHECKSUMS).write_text(_a_line_each(checksums))
        if report is not None:
            (partial / REPORT).write_text(json.dumps(dict(report()), indent=2) + '\n')
        (partial / SETTINGS).write_text(text)


def check_destination(path: str) -> pathlib.Path:
    """The absolute path of a model that may be written there.

    Raises FileExistsError if something else is there, and PermissionError where nothing can be.
    """
    target = pathlib.Path(path).absolute()
    folder = next(parent for parent in target.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PermissionError(f'{str(path)!r} cannot be written: {folder} is no folder to write into.')
    # Both, as many a folder of other people's has a settings.json.
    absent = [name for name in (SETTINGS, CHECKSUMS) if not (target / name).is_file()]
    if target.exists() and absent:
        raise FileExistsError(
            f'{str(path)!r} exists and is not a model (it has no {" and no ".join(absent)}); choose another path.'
        )
    return target


def find(model: str) -> str:
    """The directory of a model that the package ships ('emoji32'); any other value is a path already."""
    shipped = importlib.resources.files('ldm_jax') / 'weights' / model
    return str(shipped) if shipped.is_dir() else model


def is_model(path: str) -> bool:
    """Whether a model directory is at the path."""
    return (pathlib.Path(path) / SETTINGS).is_file()


@dataclasses.dataclass(frozen=True)
class Stored:
    """The leaves of a model directory, read from Orbax when they are wanted.

    verify: compare each array with its checksum; Damaged names the first that differs.
    """

    directory: pathlib.Path
    verify: bool = True

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        settings = json.loads((self.directory / SETTINGS).read_text())
        return {RENAMED.get(key, key): value for key, value in settings.items()}

    @functools.cached_property
    def specs(self) -> dict[str, TensorSpec]:
        return {
            name: TensorSpec(tuple(entry['shape']), np.dtype(entry['dtype']))
            for name, entry in self._checksums.items()
        }

    @property
    def parts(self) -> list[str]:
        return list(dict.fromkeys(map(part_of, self.specs)))

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        arrays = {}
        for part in dict.fromkeys(map(part_of, paths)):
            wanted = [name for name in paths if part_of(name) == part]
            arrays |= self._restore(part, {name: np.empty(0, self.specs[name].dtype) for name in wanted})
        if self.verify:
            for name, array in arrays.items():
                self._check(name, array)
        return arrays

    def place(self, part: str, dtype: np.dtype | None, shardings: Shardings) -> dict[str, jax.Array]:
        """The arrays of a part on devices, each read straight into its shards, unverified."""
        targets = {}
        for name, spec in self.specs.items():
            if part_of(name) == part:
                kind = dtype if dtype is not None and is_float(spec.dtype) else spec.dtype
                target = jax.ShapeDtypeStruct(spec.shape, kind)
                targets[name] = target.update(sharding=shardings(name, target))
        return self._restore(part, targets)

    def _restore(self, part: str, targets: Mapping[str, Any]) -> dict[str, Any]:
        with _orbax() as ocp, _naming(self.directory, part):
            context = ocp.Context()
            context.pytree.loading.partial_load = True
            with context:
                tree = ocp.load(self.directory / part, unflatten(targets)[part])
        found = trees.named({part: tree})
        return {name: found[name] for name in targets}

    def _check(self, name: str, array: np.ndarray) -> None:
        expected, found = self._checksums[name], _checksum(array)
        if found != expected:
            raise Damaged(
                f'{name} of {self.directory} is damaged: its checksum is {found["crc32"]} ({found["dtype"]} '
                f'{found["shape"]}), and was {expected["crc32"]} ({expected["dtype"]} {expected["shape"]}) when it '
                'was written. Fetch or convert the model again; verify=False loads it as it is.'
            )

    @functools.cached_property
    def _checksums(self) -> dict[str, dict[str, Any]]:
        path = self.directory / CHECKSUMS
        if not path.is_file():
            raise FileNotFoundError(
                f'{self.directory} has no {CHECKSUMS}: it is not whole. Write or convert the model again.'
            )
        return json.loads(path.read_text())


def open_model(path: str, verify: bool = True) -> Stored:
    """The leaves and settings of the model directory at a path. Raises FileNotFoundError when there is none."""
    directory = pathlib.Path(path).absolute()
    if not is_model(directory):
        raise FileNotFoundError(
            f'No model at {str(path)!r}: it has no {SETTINGS}. Give the directory that training or tools/convert.py '
            'wrote, such as runs/x/model.'
        )
    return Stored(directory, verify)


def load_model(
    path: str,
    parts: Sequence[str] | None = None,
    *,
    dtype: str | None = 'float32',
    shardings: jax.sharding.Sharding | Shardings | None = None,
    verify: bool = True,
) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """Reads (settings, part -> parameters) of a model directory.

    Args:
        path: of the directory.
        parts: which ones to read; all by default. What belongs to others is not touched.
        dtype: of the floating-point leaves; None for that on disk.
        shardings: where each array goes: one sharding for all, or a function of its '<part>/<path>' and
            shape. Host arrays by default. What devices wrote the model does not matter.
        verify: compare each array with its checksum. That reads all of it on every host; without, a host
            reads only its own shards.

    Raises:
        FileNotFoundError: there is no model at the path.
        ValueError: it has no such part.
        Damaged: an array is not what was written.
    """
    stored = open_model(path, verify)
    kind = None if dtype is None else np.dtype(dtype)
    place = (lambda name, target: shardings) if isinstance(shardings, jax.sharding.Sharding) else shardings
    params = {}
    for part in stored.parts if parts is None else parts:
        if part not in stored.parts:
            raise unknown(f'part of {path}', part, stored.parts)
        if place is not None and not verify:
            arrays = stored.place(part, kind, place)
        else:
            arrays = dict(_read(Only(stored, (part,)), kind, place))
        params[part] = unflatten(arrays)[part]
    return stored.settings, params


def _read(
    leaves: Leaves, dtype: np.dtype | None, place: Shardings | None
) -> Iterator[tuple[str, np.ndarray | jax.Array]]:
    leaves = leaves if dtype is None else Cast(leaves, dtype)
    for paths in windows(leaves.specs):
        for name, array in leaves.read(paths).items():
            if place is not None:
                sharding = place(name, jax.ShapeDtypeStruct(array.shape, array.dtype))
                array = jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
            yield name, array


def _checksum(array: np.ndarray) -> dict[str, Any]:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return {'shape': list(array.shape), 'dtype': str(array.dtype), 'crc32': f'{zlib.crc32(data):08x}'}


def _a_line_each(entries: Mapping[str, Any]) -> str:
    return (
        '{\n'
        + ',\n'.join(f'{json.dumps(key)}: {json.dumps(value)}' for key, value in entries.items())
        + '\n}\n'
    )


@contextlib.contextmanager
def _orbax(compress: bool = True):
    """Orbax, which takes a second to import, with settings for writing."""
    from absl import logging
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.array.saving.use_compression = compress
    context.memory.deepcopy_host_arrays = False  # nobody changes them while they are written
    if jax.distributed.is_initialized():  # each process reads for itself
        here = jax.process_index()
        context.multiprocessing.primary_host = here
        context.multiprocessing.active_processes = {here}
        context.multiprocessing.barrier_sync_key_prefix = f'process_{here}'
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # Orbax tells each of its thoughts at INFO
    try:
        with context:
            yield ocp
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _naming(directory: pathlib.Path, part: str) -> Iterator[None]:
    """Says which part of which model could not be read."""
    try:
        yield
    except (ValueError, OSError, KeyError) as error:
        text = str(error).partition('\n')[0][:300]
        raise Damaged(f'{part} of {directory} cannot be read: {text}. Fetch or convert it again.') from error
