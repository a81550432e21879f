"""A trace of some steps, for TensorBoard's profile plugin or Perfetto."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import jax

from ldm_jax.types import PyTree


class Profiler:
    """Traces the steps first <= n < last of a run into workdir/profile; no steps, nothing."""

    def __init__(self, root: pathlib.Path, steps: Sequence[int]):
        self._folder = root / 'profile'
        self._first, self._last = steps or (0, 0)
        self._running = False

    def before(self, n: int) -> None:
        """Called before step n is started."""
        if not self._running and self._first <= n < self._last:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, n: int, result: PyTree) -> None:
        """Called when step n has been started; its result is waited for where the trace ends."""
        if self._running and n + 1 >= self._last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends a trace that is under way."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            print(f'profile written to {self._folder}', flush=True)


def check(steps: Sequence[int]) -> None:
    """Raises ValueError unless steps is empty or a range of steps."""
    if len(steps) and (len(steps) != 2 or not 0 <= steps[0] < steps[1]):
        raise ValueError(f'run.profile is the steps to trace, (first, last) with last left out; got {steps}.')
