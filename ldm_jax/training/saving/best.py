"""The best state of a run by a number that is measured as it trains, in a folder beside the newest states."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping

from ldm_jax.training.saving import stored_steps
from ldm_jax.training.saving.checkpoints import Checkpoints
from ldm_jax.types import PyTree

FOLDER = 'best'


class Best:
    """Keeps one state, that of the best number so far, through restarts too.

    Args:
        root: the workdir.
        name: the number.
        sign: 1 where more is better, -1 where less is.
    """

    def __init__(self, root: pathlib.Path, name: str, sign: int):
        self._name, self._sign = name, sign
        self._checkpoints = Checkpoints(root / FOLDER, keep=1)
        steps = self._checkpoints.steps()
        record = stored_steps.read_record(root / FOLDER / str(steps[-1]))['extra'] if steps else {}
        self.value: float = record.get(name, -sign * math.inf)

    def offer(self, step: int, state: PyTree, numbers: Mapping[str, float]) -> bool:
        """Keeps the state if its number is better than the one that is kept; whether it was.

        Raises ValueError where the number was not measured.
        """
        if self._name not in numbers:
            raise ValueError(f'run.keep_best is {self._name!r}; measured were {sorted(numbers)}.')
        value = float(numbers[self._name])
        if not self._sign * value > self._sign * self.value:
            return False
        self._checkpoints.save(step, state, {self._name: value})
        self._checkpoints.wait()
        self.value = value
        return True

    def restore(self, like: PyTree) -> PyTree | None:
        """The state that is kept, as `Checkpoints.restore` reads it; None where there is none."""
        found = self._checkpoints.restore(like)
        return None if found is None else found.state

    def close(self) -> None:
        self._checkpoints.__exit__()
