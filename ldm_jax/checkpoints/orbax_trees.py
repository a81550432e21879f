"""Orbax, quiet and on one host: the trees of a model directory."""

from __future__ import annotations

import contextlib
import functools
import logging
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
    with naming_full_disk(target), orbax(compress) as ocp:
        yield ocp


@contextlib.contextmanager
def naming_full_disk(target: pathlib.Path) -> Iterator[None]:
    """`atomic.naming_full_disk` for what Orbax writes: tensorstore has the system's error in its text alone."""
    with atomic.naming_full_disk(target):
        try:
            yield
        except ValueError as error:
            for code in atomic.FULL:
                if os.strerror(code) in str(error):
                    raise OSError(code, os.strerror(code), str(target)) from error
            raise


@contextlib.contextmanager
def orbax(compress: bool = True) -> Iterator[Any]:
    """Orbax, which takes a second to import, with settings for writing; see `quiet`."""
    from orbax.checkpoint import v1 as ocp

    quiet()
    context = ocp.Context()
    context.array.saving.use_compression = compress
    context.memory.deepcopy_host_arrays = False  # nobody changes them while they are written
    if jax.distributed.is_initialized():  # each process reads for itself
        here = jax.process_index()
        context.multiprocessing.primary_host = here
        context.multiprocessing.active_processes = {here}
        context.multiprocessing.barrier_sync_key_prefix = f'process_{here}'
    with context:
        yield ocp


@functools.cache
def quiet() -> None:
    """Drops, from the first use of Orbax on, what is printed besides the one error that it raises.

    Its threads log the error that they hand on. A write runs in an event loop of its own, which the first error ends;
    the futures of the other arrays fail unseen, and asyncio and the interpreter report each when it is collected,
    which may be long after the write.
    """
    from absl import logging as absl_logging

    absl_logging.get_absl_logger().addFilter(lambda record: f'{os.sep}orbax{os.sep}' not in record.pathname)
    logging.getLogger('asyncio').addFilter(_of_others)
    sys.unraisablehook = functools.partial(_hook, sys.unraisablehook)


def _of_others(record: logging.LogRecord) -> bool:
    """Whether a message of asyncio is about the futures of others than Orbax, whose paths and texts name it."""
    return 'orbax' not in f'{record.getMessage()} {record.exc_info and record.exc_info[1]}'


def _hook(before: Callable[[Any], object], unraisable: Any) -> None:
    """Drops the errors of tensorstore's threads that find the event loop of a failed write closed."""
    first = unraisable.exc_traceback and unraisable.exc_traceback.tb_frame.f_code.co_name
    # Called from Python, another function would be the outermost.
    if (first, str(unraisable.exc_value)) != ('call_soon_threadsafe', 'Event loop is closed'):
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
