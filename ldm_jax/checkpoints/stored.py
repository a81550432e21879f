"""The arrays of a model directory, read by pieces: one is read while those before it are verified, cast and placed."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes  # noqa: F401 (so that numpy knows 'bfloat16' by name)
import numpy as np

from ldm_jax import trees
from ldm_jax.checkpoints import checksums, default_tokenizers, model_settings
from ldm_jax.checkpoints.checksums import Damaged
from ldm_jax.checkpoints.files.tensor_file import TensorSpec
from ldm_jax.checkpoints.layouts.rules import unflatten
from ldm_jax.checkpoints.lazy_arrays import cast, is_float, part_of, windows
from ldm_jax.checkpoints.orbax_trees import restore

SETTINGS, CHECKSUMS, REPORT = 'settings.json', 'checksums.json', 'report.json'
PIECE = 2**27  # bytes that are read at once
AHEAD = 2  # pieces that are read before one is done with
WORKERS = min(8, os.cpu_count() or 1)

Shardings = Callable[[str, jax.ShapeDtypeStruct], jax.sharding.Sharding]


@dataclasses.dataclass(frozen=True)
class Stored:
    """The leaves of a model directory, read from Orbax when they are wanted.

    verify: compare each array with its checksum; Damaged names the first that differs.
    """

    directory: pathlib.Path
    verify: bool = True

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """By today's names, with the tokenizers that follow from the text encoders.

        Raises Damaged where they are not what was written, or not settings.
        """
        path = self.directory / SETTINGS
        expected = self.record.get(SETTINGS)
        if self.verify and expected is not None and checksums.crc32(path.read_bytes()) != expected['crc32']:
            raise Damaged(
                f'{path} is not what was written. Fetch or convert the model again; if it was changed on purpose, '
                'ldm_jax.checkpoints.store.seal(directory) takes it as it is now.'
            )
        found = checksums.read_json(path)
        try:
            return default_tokenizers.completed(model_settings.read(found))
        except (ValueError, TypeError) as error:
            raise Damaged(f'{path}: {error}') from error

    @functools.cached_property
    def specs(self) -> dict[str, TensorSpec]:
        return {
            name: TensorSpec(tuple(entry['shape']), np.dtype(entry['dtype']))
            for name, entry in self.record.items()
            if name != SETTINGS
        }

    def check(self) -> None:
        """Raises Damaged where the settings or the checksums are not what was written."""
        _ = self.settings, self.specs

    @property
    def parts(self) -> list[str]:
        return list(dict.fromkeys(map(part_of, self.specs)))

    def read(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays on the host, verified, as they are stored."""
        return self.load(paths, None, None)

    def load(
        self, paths: Sequence[str], dtype: np.dtype | None, shardings: Shardings | None
    ) -> dict[str, np.ndarray | jax.Array]:
        """The arrays, verified, the floating-point ones in a dtype, and on devices where shardings are given."""

        def finish(name: str, array: np.ndarray) -> np.ndarray | jax.Array:
            if self.verify:
                self._check(name, array)
            array = array if dtype is None else cast(name, array, dtype)
            if shardings is None:
                return array
            sharding = shardings(name, jax.ShapeDtypeStruct(array.shape, array.dtype))
            return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

        found: dict[str, np.ndarray | jax.Array] = {}
        started: collections.deque[dict[str, concurrent.futures.Future]] = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as workers:
            for piece in self._pieces(paths):
                arrays = self._restore(piece, {name: np.empty(0, self.specs[name].dtype) for name in piece})
                started.append({name: workers.submit(finish, name, arrays.pop(name)) for name in piece})
                if len(started) > AHEAD:
                    found |= {name: future.result() for name, future in started.popleft().items()}
            for futures in started:
                found |= {name: future.result() for name, future in futures.items()}
        return found

    def place(
        self, paths: Sequence[str], dtype: np.dtype | None, shardings: Shardings
    ) -> dict[str, jax.Array]:
        """The arrays on devices, each read straight into its shards, unverified."""
        found = {}
        for part in dict.fromkeys(map(part_of, paths)):
            targets = {}
            for name in paths:
                if part_of(name) == part:
                    spec = self.specs[name]
                    kind = dtype if dtype is not None and is_float(spec.dtype) else spec.dtype
                    target = jax.ShapeDtypeStruct(spec.shape, kind)
                    targets[name] = target.update(sharding=shardings(name, target))
            found |= self._restore(list(targets), targets)
        return found

    def _pieces(self, paths: Sequence[str]) -> list[list[str]]:
        """The paths, a piece of one part at a time."""
        found = []
        for part in dict.fromkeys(map(part_of, paths)):
            found += windows({name: self.specs[name] for name in paths if part_of(name) == part}, PIECE)
        return found

    def _restore(self, paths: Sequence[str], targets: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays of one part."""
        part = part_of(paths[0])
        tree = restore(self.directory, part, unflatten(targets)[part])
        found = trees.named({part: tree})
        return {name: found[name] for name in paths}

    def _check(self, name: str, array: np.ndarray) -> None:
        expected, found = self.record[name], array_entry(array)
        if found != expected:
            raise Damaged(
                f'{name} of {self.directory} is damaged: its checksum is {found["crc32"]} ({found["dtype"]} '
                f'{found["shape"]}), and was {expected["crc32"]} ({expected["dtype"]} {expected["shape"]}) when it '
                'was written. Fetch or convert the model again; verify=False loads it as it is.'
            )

    @functools.cached_property
    def record(self) -> dict[str, dict[str, Any]]:
        """What CHECKSUMS says of each array, and of the settings where it is not from before they had a checksum."""
        path = self.directory / CHECKSUMS
        try:
            found = checksums.read_json(path)
        except FileNotFoundError:
            raise FileNotFoundError(
                f'{self.directory} has no {CHECKSUMS}: it is not whole. Write or convert the model again.'
            ) from None
        older = isinstance(found, dict) and SETTINGS not in found and checksums.SEAL not in found
        record = found if older else checksums.unsealed(found, path)
        for name, entry in record.items():
            if not _is_entry(name, entry):
                raise Damaged(f'{path} is not what was written: {name[:80]!r} is {str(entry)[:80]}')
        if not record:
            raise Damaged(f'{path} is not what was written: it names no array')
        return record


def array_entry(array: np.ndarray) -> dict[str, Any]:
    """What CHECKSUMS says of an array."""
    return {'shape': list(array.shape), 'dtype': str(array.dtype), 'crc32': checksums.crc32(array)}


def _is_entry(name: str, entry: Any) -> bool:
    keys = {'crc32'} if name == SETTINGS else {'shape', 'dtype', 'crc32'}
    if not isinstance(entry, dict) or entry.keys() != keys or not isinstance(entry['crc32'], str):
        return False
    if name == SETTINGS:
        return True
    sizes = entry['shape']
    whole = isinstance(sizes, list) and all(type(size) is int and 0 <= size < 2**40 for size in sizes)
    return '/' in name and whole and _is_dtype(entry['dtype'])


def _is_dtype(name: Any) -> bool:
    try:
        return isinstance(name, str) and str(np.dtype(name)) == name and not np.dtype(name).hasobject
    except (TypeError, ValueError):
        return False
