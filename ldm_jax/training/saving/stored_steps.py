"""The steps of a folder of checkpoints, read without having it open: any process may, while a run goes on."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from ldm_jax import trees
from ldm_jax.checkpoints import checksums
from ldm_jax.checkpoints.checksums import Damaged
from ldm_jax.types import Array, PyTree

DELETED = 'deleted'  # the folder of steps on their way out


def unfinished(folder: pathlib.Path) -> list[pathlib.Path]:
    """Folders that a killed run left half written or half removed."""
    return [
        path for path in folder.iterdir() if path.name == DELETED or ocp.path.step.is_path_temporary(path)
    ]


def inspect(folder: pathlib.Path) -> dict[int, str | None]:
    """Every listed step with its fault, None where it is whole; changes nothing."""
    found: dict[int, str | None] = {}
    for step in listed(folder):
        try:
            read_some(pathlib.Path(folder) / str(step))
            found[step] = None
        except Damaged as error:
            found[step] = str(error)
    return found


def listed(folder: pathlib.Path) -> list[int]:
    """The steps of a folder that no process needs to have open, in order."""
    return sorted(int(path.name) for path in pathlib.Path(folder).glob('*') if path.name.isdecimal())


def read_some(directory: pathlib.Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Array]:
    """The leaves of one step whose paths are wanted, verified, on the first device. Raises Damaged."""
    entries = {name: entry for name, entry in read_record(directory)['arrays'].items() if wanted(name)}
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    targets = {
        name: jax.ShapeDtypeStruct(tuple(entry['shape']), np.dtype(entry['dtype']), sharding=here)
        for name, entry in entries.items()
    }

    def restore(tree):
        options = ocp.checkpoint_utils.construct_restore_args(tree)
        restore = ocp.args.PyTreeRestore(tree, options, partial_restore=True)
        with ocp.PyTreeCheckpointer() as reader:
            return reader.restore((directory / 'state').absolute(), restore)

    leaves = restored(restore, targets)
    verify(directory.name, leaves, entries)
    return leaves


def read_record(directory: pathlib.Path) -> dict[str, Any]:
    """The record that was stored with the state of one step. Raises Damaged."""
    path = directory / 'record' / 'metadata'
    try:
        return checksums.unsealed(checksums.read_json(path), path)
    except FileNotFoundError as error:
        raise Damaged(f'{path} cannot be read: it is not there') from error


def restored(
    restore: Callable[[PyTree], PyTree], targets: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, Array]:
    """The arrays that Orbax restores for targets, by path."""
    try:
        return trees.named(restore(traverse_util.unflatten_dict(dict(targets), sep='/')))
    except (
        ValueError,
        OSError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:  # each seen from damaged files
        raise Damaged(f'its state cannot be read: {str(error).partition(chr(10))[0][:300]}') from error


def verify(step: int | str, leaves: Mapping[str, Array], entries: Mapping[str, Any]) -> None:
    wrong = [name for name, value in checksums.folded(leaves).items() if value != entries[name]['checksum']]
    if wrong:
        raise Damaged(f'{len(wrong)} arrays of step {step} differ from what was written, such as {wrong[0]}')
