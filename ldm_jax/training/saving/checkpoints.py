"""The states of a run on disk: written beside the training, whole or absent, verified when they are read.

    checkpoints/<step>/state     an Orbax tree of the state's leaves
    checkpoints/<step>/record    shape, dtype and checksum of each leaf, and what the caller adds
    checkpoints/deleted/         steps on their way out: renamed first, so that no listed step is half removed
    checkpoints/damaged/         steps that could not be read, set aside by name

A step is written under a temporary name and renamed when it is whole. Orbax notices a missing file but no flipped
bit; the checksums do.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from ldm_jax import atomic
from ldm_jax.checkpoints import checksums, orbax_trees
from ldm_jax.checkpoints.checksums import Damaged
from ldm_jax.training.saving import state_leaves, stored_steps
from ldm_jax.types import PyTree

DAMAGED = 'damaged'


@dataclasses.dataclass(frozen=True)
class Restored:
    """A state after `step` updates, with the data that were stored beside it."""

    step: int
    state: PyTree
    extra: dict[str, Any]


class Checkpoints:
    """The steps of one folder. A context manager: leaving it waits for the last write.

    Args:
        folder: made if need be. What killed runs left unfinished in it is removed.
        keep: how many of the newest steps stay.
        keep_every: multiples of this stay for good.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 2, keep_every: int | None = None):
        self.folder = pathlib.Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        orbax_trees.quiet()
        self._remove_unfinished()
        managers = checkpoint_managers
        policies = [managers.LatestN(keep)]
        if keep_every is not None:
            policies.append(managers.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy(policies),
                todelete_subdir=stored_steps.DELETED,
                enable_should_save_is_saving_in_progress_check=False,
            ),
        )
        self._writing: int | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            with orbax_trees.naming_full_disk(self.folder):
                self._manager.close()
        finally:
            self._remove_unfinished()
            if any(isinstance(part, OSError) for part in error):
                # Orbax raises at the first array that fails and does not wait for the others, which make their
                # folder anew: remove it for a second, after which only the next start would.
                for _ in range(10):
                    time.sleep(0.1)
                    self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        if jax.process_index() == 0:
            for path in stored_steps.unfinished(self.folder):
                atomic.remove(path)

    def steps(self) -> list[int]:
        """Those that are whole, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: PyTree, extra: Mapping[str, Any] | None = None) -> None:
        """Starts writing a state; returns when its buffers may be overwritten. A step that exists is left alone.

        Args:
            step: its number of updates.
            state: any pytree of arrays and PRNG keys, on any number of devices.
            extra: plain JSON data that `restore` gives back.

        Raises as `wait` does.
        """
        with orbax_trees.naming_full_disk(self.folder):
            self._manager.wait_until_finished()
        if step in self._manager.all_steps():
            return
        if jax.process_index() == 0:
            shutil.rmtree(self.folder / stored_steps.DELETED, ignore_errors=True)
        leaves = state_leaves.plain(state)
        sums = checksums.folded(leaves)
        record = {
            'arrays': {
                name: {'shape': list(leaf.shape), 'dtype': str(leaf.dtype), 'checksum': sums[name]}
                for name, leaf in leaves.items()
            },
            'keys': state_leaves.prng_keys(state),
            'extra': dict(extra or {}),
        }
        # A copy: it is written while the caller goes on and changes his.
        record = json.loads(json.dumps(record))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(traverse_util.unflatten_dict(leaves, sep='/')),
            record=ocp.args.JsonSave(checksums.sealed(record)),
        )
        with orbax_trees.naming_full_disk(self.folder):
            self._manager.save(step, args=items, force=True)
        self._writing = step

    def written(self) -> int | None:
        """The step whose write has ended since this was last asked; None if there is none."""
        if self._writing is None or self._manager.is_saving_in_progress():
            return None
        return self.wait()

    def wait(self) -> int | None:
        """As `written`, but waits for the write that is under way.

        Raises what made it fail: OSError naming the folder when the disk is full.
        """
        with orbax_trees.naming_full_disk(self.folder):
            self._manager.wait_until_finished()
        step, self._writing = self._writing, None
        return step

    def restore(self, like: PyTree) -> Restored | None:
        """The newest step that is undamaged; None when there are no steps.

        A damaged step is named, set aside in `damaged/`, and the one before it taken.

        Args:
            like: what the state looks like: its structure, with arrays or ShapeDtypeStructs for leaves. Each
                leaf is read onto the sharding of its like, whatever devices it was written from.

        Raises:
            Damaged: no step can be read. Nothing has been moved.
            ValueError: the steps are of a state with other leaves.
        """
        passed: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                restored, error = self._read(step, like), None
            except Damaged as found:
                restored, error = None, str(found)
            if _any_process(error is not None):
                passed[step] = error or 'another process could not read it'
                continue
            self._set_aside(passed)
            return restored
        if passed:
            raise Damaged(
                f'No checkpoint in {self.folder} can be read: {passed}. Train in another workdir, or remove that '
                'folder to start anew.'
            )
        return None

    def _read(self, step: int, like: PyTree) -> Restored:
        record = stored_steps.read_record(self.folder / str(step))
        wanted = state_leaves.plain(like)
        state_leaves.check(self.folder / str(step), record['arrays'], wanted)
        targets = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=state_leaves.sharding_of(leaf))
            for name, leaf in wanted.items()
        }
        leaves = stored_steps.restored(functools.partial(self._restore, step), targets)
        stored_steps.verify(step, leaves, record['arrays'])
        return Restored(step, state_leaves.typed(leaves, like, record['keys']), record['extra'])

    def _restore(self, step: int, tree: PyTree) -> PyTree:
        items = ocp.args.Composite(state=ocp.args.StandardRestore(tree))
        return self._manager.restore(step, args=items)['state']

    def _set_aside(self, passed: Mapping[int, str]) -> None:
        for step, error in passed.items():
            target = self.folder / DAMAGED / str(step)
            print(f'checkpoint {step} is passed over and moved to {target}: {error}', flush=True)
            if jax.process_index() == 0:
                target.parent.mkdir(exist_ok=True)
                while target.exists():
                    target = target.with_name(target.name + '_')
                (self.folder / str(step)).rename(target)
        if passed:
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices('damaged checkpoints set aside')
            self._manager.reload()


def _any_process(flag: bool) -> bool:
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
