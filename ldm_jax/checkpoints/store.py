"""Models on disk: one directory with the parameters of each part, what builds them, and a checksum for each array.

    model/settings.json     the schema of a config: what builds the parts, and how they work together
    model/checksums.json    '<part>/<path>' -> shape, dtype and CRC-32 of every array; the settings' checksum; its own
    model/report.json       where the parameters came from, if they were converted
    model/unet/ ...         one Orbax tree a part, loadable alone

A directory appears under its name only when it is whole. Neither Orbax nor the formats below it notice a flipped
bit; the checksums do, and name the file or the array.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ldm_jax import atomic, trees
from ldm_jax.build import unknown
from ldm_jax.checkpoints import checksums, claims, model_settings
from ldm_jax.checkpoints.layouts.rules import unflatten
from ldm_jax.checkpoints.lazy_arrays import Arrays, Cast, Leaves, Only, contiguous, part_of, windows
from ldm_jax.checkpoints.orbax_trees import writing
from ldm_jax.checkpoints.stored import CHECKSUMS, REPORT, SETTINGS, Shardings, Stored, array_entry
from ldm_jax.types import PyTree


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
    settings = dict(settings)
    model_settings.check(settings)
    text = json.dumps(settings, indent=2) + '\n'  # first, so that what JSON cannot hold fails at once
    record: dict[str, dict[str, Any]] = {SETTINGS: {'crc32': checksums.crc32(text.encode())}}
    with claims.claimed(target), atomic.atomic_folder(target) as partial:
        for part in dict.fromkeys(map(part_of, leaves.specs)):
            record |= _write_part(target, partial / part, Only(leaves, (part,)), compress)
        (partial / CHECKSUMS).write_text(_a_line_each(checksums.sealed(record)))
        if report is not None:
            (partial / REPORT).write_text(json.dumps(dict(report()), indent=2) + '\n')
        (partial / SETTINGS).write_text(text)


def _write_part(
    target: pathlib.Path, folder: pathlib.Path, leaves: Leaves, compress: bool
) -> dict[str, dict[str, Any]]:
    """Writes the tree of one part of a target; returns what CHECKSUMS says of its arrays."""
    record = {}
    with writing(target, compress) as ocp:
        for paths in windows(leaves.specs):
            arrays = {name: contiguous(array) for name, array in leaves.read(paths).items()}
            record |= {name: array_entry(array) for name, array in arrays.items()}
            ocp.partial.save(folder, unflatten(arrays)[folder.name])
        ocp.partial.finalize(folder)
    # Orbax's own mark of a whole tree names the folder it was written to; ours is the directory's name.
    (folder / 'commit_success.txt').unlink(missing_ok=True)
    return record


def seal(path: str) -> None:
    """Takes the settings of a model directory as they are now: their checksum is written anew.

    Raises FileNotFoundError when there is no model, Damaged when its checksums are not what was written.
    """
    stored = open_model(path, verify=False)
    record = {name: entry for name, entry in stored.record.items() if name != SETTINGS}
    content = (stored.directory / SETTINGS).read_bytes()
    record = {SETTINGS: {'crc32': checksums.crc32(content)}, **record}
    atomic.write(stored.directory / CHECKSUMS, _a_line_each(checksums.sealed(record)))


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


def open_model(path: str, verify: bool = True) -> Stored:
    """The leaves and settings of the model directory at a path.

    Raises FileNotFoundError when there is none, Damaged when its settings or checksums are not what was written.
    """
    directory = pathlib.Path(path).absolute()
    if not is_model(directory):
        raise FileNotFoundError(
            f'No model at {str(path)!r}: it has no {SETTINGS}. Give the directory that training or tools/convert.py '
            'wrote, such as runs/x/model.'
        )
    stored = Stored(directory, verify)
    if verify:
        stored.check()
    return stored


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
    return load_stored(open_model(path, verify), parts, dtype=dtype, shardings=shardings)


def load_stored(
    stored: Stored,
    parts: Sequence[str] | None = None,
    *,
    dtype: str | None = 'float32',
    shardings: jax.sharding.Sharding | Shardings | None = None,
) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """`load_model` of a model directory that is open."""
    kind = None if dtype is None else np.dtype(dtype)
    place = (lambda name, target: shardings) if isinstance(shardings, jax.sharding.Sharding) else shardings
    params = {}
    for part in stored.parts if parts is None else parts:
        if part not in stored.parts:
            raise unknown(f'part of {stored.directory}', part, stored.parts)
        paths = [name for name in stored.specs if part_of(name) == part]
        if place is not None and not stored.verify:
            arrays = stored.place(paths, kind, place)
        else:
            arrays = stored.load(paths, kind, place)
        params[part] = unflatten(arrays)[part]
    return stored.settings, params


def _a_line_each(entries: Mapping[str, Any]) -> str:
    return (
        '{\n'
        + ',\n'.join(f'{json.dumps(key)}: {json.dumps(value)}' for key, value in entries.items())
        + '\n}\n'
    )
