"""One writer at a time for a destination; a second one is refused, and reads who holds it.

The claim is a lock that the system drops with the process that held it, on a file beside the destination, which
says who that is and goes when the work is done.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import socket
import sys
import time
from collections.abc import Iterator

CLAIM = '.ldm_jax-claim'  # behind the name of the destination


@contextlib.contextmanager
def claimed(destination: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a destination while the block runs.

    Raises FileExistsError, saying who, when somebody else holds it.
    """
    target = pathlib.Path(destination).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    place = target.with_name(target.name + CLAIM)
    descriptor = _locked(place, target)
    try:
        me = f'process {os.getpid()} on {socket.gethostname()} ({" ".join(sys.argv)[:80]}), since {time.strftime("%T")}'
        os.pwrite(descriptor, me.encode(), 0)
        yield
    finally:
        place.unlink(missing_ok=True)  # still locked: whoever opened it before will see that it is gone
        os.close(descriptor)


def check(destination: str | os.PathLike[str]) -> None:
    """Raises FileExistsError, saying who, when somebody holds a destination: before long work for nothing."""
    target = pathlib.Path(destination).absolute()
    place = target.with_name(target.name + CLAIM)
    if place.exists():
        with claimed(target):
            pass


def _locked(place: pathlib.Path, target: pathlib.Path) -> int:
    """The descriptor of the locked file that is at the place."""
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 400, 0).decode(errors='replace') or 'another process'
            os.close(descriptor)
            raise FileExistsError(
                f'{target} is being written by {holder}. Wait for it, or choose another path.'
            ) from None
        except FileNotFoundError:
            pass  # its holder has just finished
        os.close(descriptor)
