"""One training at a time in a workdir: two would write over each other's checkpoints and metrics."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np

from ldm_jax.checkpoints import claims
from ldm_jax.training.parallel import distributed


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
    """Holds a workdir for a run, whose first process claims it for all; the system lets go however that ends.

    Raises FileExistsError on every process when another training holds it, saying who.
    """
    with contextlib.ExitStack() as stack:
        refused: FileExistsError | None = None
        if distributed.first():
            try:
                stack.enter_context(claims.claimed(workdir))
            except FileExistsError as error:
                refused = error
        if distributed.together(np.array([int(refused is not None)]))[0]:
            raise refused or FileExistsError(f'{workdir} is in use by another training.')
        yield
