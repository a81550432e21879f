"""Orbax, quiet and on one host: the trees of a model directory."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ldm_jax import atomic
from ldm_jax.checkpoints.checksums import Damaged


@contextlib.contextmanager
def writing(target: pathlib.Path, compress: bool) -> Iterator[Any]:
    """`orbax`, whose errors of a full disk become OSErrors that name the target."""
    with atomic.naming_full_disk(target):
        try:
            with orbax(compress) as ocp:
                yield ocp
        except ValueError as error:  # of tensorstore, which puts the system's error into its text
            for code in atomic.FULL:
                if os.strerror(code) in str(error):
                    raise OSError(code, os.strerror(code), str(target)) from error
            raise


@contextlib.contextmanager
def orbax(compress: bool = True) -> Iterator[Any]:
    """Orbax, which takes a second to import, with settings for writing; what it logs below errors is dropped."""
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
    logging.set_verbosity(logging.FATAL)  # it tells its thoughts at INFO, and errors again that it raises
    hook = sys.unraisablehook
    sys.unraisablehook = functools.partial(_hook, hook)
    try:
        with context:
            yield ocp
        sys.unraisablehook = hook  # after an error, threads of the write that failed still end one by one
    finally:
        logging.set_verbosity(verbosity)


def _hook(before: Callable[[Any], object], unraisable: Any) -> None:
    """Drops what tensorstore's threads print of a write that failed already: that nobody waits for them."""
    if str(unraisable.exc_value) != 'Event loop is closed':
        before(unraisable)


def restore(directory: os.PathLike[str], part: str, targets: Any) -> Any:
    """The tree of a part of a model directory, as the targets say. Raises Damaged for what Orbax cannot read."""
    try:
        with orbax() as ocp:
            context = ocp.Context()
            context.pytree.loading.partial_load = True
            with context:
                return ocp.load(os.path.join(directory, part), targets)
    except MemoryError:
        raise
    except Exception as error:  # what a damaged file makes of Orbax has no bounds
        text = str(error).partition('\n')[0][:300]
        raise Damaged(f'{part} of {directory} cannot be read: {text}. Fetch or convert it again.') from error
