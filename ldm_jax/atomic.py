"""Files and folders that appear under their names only when they are whole.

They are written beside their target under another name, which ends in PARTIAL, and renamed. What a killed process
leaves behind has that ending, and is overwritten by the next one where only one can be writing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Iterator

PARTIAL = '.ldm_jax-partial'  # no file of anybody else's ends so
OLD = '.ldm_jax-old'  # behind the name of a folder that is being replaced
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, alone: bool = False, sync: bool = False
) -> Iterator[pathlib.Path]:
    """A path at which to write a file; it becomes the target when the block ends without an error.

    Args:
        path: of the target; an older file there is replaced. If several write it, the last one wins.
        alone: nobody else is writing it, so that what a killed writer left is overwritten.
        sync: wait until the disk has it, so that the name does not outlive a power cut without the content.

    Raises OSError naming the target when the disk is full; nothing stays of what was written.
    """
    target = pathlib.Path(path)
    mine = '' if alone else f'.{os.getpid()}.{threading.get_ident()}'
    partial = target.with_name(target.name + mine + PARTIAL)
    try:
        with naming_full_disk(target):
            yield partial
            if sync:
                flush(partial)
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    if sync:
        flush(target.parent)


def write(path: str | os.PathLike[str], content: str | bytes, *, alone: bool = False) -> None:
    """Writes text (as UTF-8) or bytes as one file that appears whole; the rest is as in `atomic_write`."""
    with atomic_write(path, alone=alone) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A folder to write into, which becomes the target when the block ends without an error.

    One process at a time: see `claims.claimed`. An older folder there is replaced. Raises as `atomic_write`.
    """
    target = pathlib.Path(path)
    partial, old = target.with_name(target.name + PARTIAL), target.with_name(target.name + OLD)
    if old.exists() and not target.exists():  # a writer was killed between the two renames below
        old.rename(target)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with naming_full_disk(target):
            partial.mkdir(parents=True)
            yield partial
            for file in partial.rglob('*'):
                if file.is_file():
                    flush(file)
    except BaseException:
        remove(partial)
        raise
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def remove(folder: pathlib.Path) -> None:
    """Removes a folder, in which threads of a writer that failed may still be making files."""
    for delay in (0, 0.05, 0.2, 0.5, 1):
        time.sleep(delay)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


@contextlib.contextmanager
def naming_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names what was being written in the OSError of a full disk, which often has no file name."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def flush(path: pathlib.Path) -> None:
    """Waits until the disk has a file, or a folder's list of names."""
    with contextlib.ExitStack() as stack:
        if path.is_dir():
            stack.enter_context(contextlib.suppress(OSError))  # not every file system syncs folders
        descriptor = os.open(path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        os.fsync(descriptor)
