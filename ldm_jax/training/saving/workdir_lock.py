"""One training at a time in a workdir: two would write over each other's checkpoints and metrics."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Iterator

import numpy as np

from ldm_jax.training.parallel import distributed

LOCK, HOLDER = '.lock', '.lock.json'


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
    """Holds a workdir for this run, whose first process locks it for all.

    The operating system lets go of the lock however the process ends.

    Raises BlockingIOError, on every process, when another training holds it; the message names that.
    """
    from filelock import FileLock, Timeout

    workdir.mkdir(parents=True, exist_ok=True)
    lock, refused = FileLock(workdir / LOCK), False
    if distributed.first():
        try:
            lock.acquire(timeout=0)
            about = {'pid': os.getpid(), 'host': socket.gethostname(), 'since': _now()}
            (workdir / HOLDER).write_text(json.dumps(about))
        except Timeout:
            refused = True
    try:
        if distributed.together(np.array([int(refused)]))[0]:
            raise BlockingIOError(
                f'{workdir} is in use by another training{_holder(workdir)}. Choose another --workdir, or end that '
                'one first.'
            )
        yield
    finally:
        if lock.is_locked:
            (workdir / HOLDER).unlink(missing_ok=True)
            lock.release()


def _holder(workdir: pathlib.Path) -> str:
    try:
        about = json.loads((workdir / HOLDER).read_text())
        return f' (process {about["pid"]} on {about["host"]}, since {about["since"]})'
    except (OSError, ValueError, KeyError, TypeError):
        return ''


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(sep=' ', timespec='seconds')
