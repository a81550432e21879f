"""Arrays about data files that take long to gather, kept in the cache folder for as long as the files stay."""

from __future__ import annotations

import collections
import glob
import hashlib
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterable

import numpy as np

from ldm_jax.atomic import atomic_write
from ldm_jax.cache import cache_folder
from ldm_jax.data import folders

log = logging.getLogger(__name__)


def files(path: str | tuple[str, ...], suffixes: tuple[str, ...]) -> list[str]:
    """The data files that a setting names, in order.

    Args:
        path: a file, a folder (all files in it and beneath with one of the suffixes, but hidden ones, as in
            folders.py), a pattern with *, ? or {00..15} as in '{00000..00041}.tar', or several of these.
        suffixes: such as ('.tar',).

    Raises FileNotFoundError for a path that names no such file, ValueError for a file that is named twice.
    """
    if not isinstance(path, str):
        found = [file for part in path for file in files(part, suffixes)]
        twice = [
            name for name, count in collections.Counter(map(os.path.realpath, found)).items() if count > 1
        ]
        if twice:
            raise ValueError(
                f'{folders.counted({"files named more than once": twice})} by {path}; name each once, or its examples '
                'count double.'
            )
        return found
    if numbers := re.search(r'\{(\d+)\.\.(\d+)\}', path):
        first, last = numbers.groups()
        names = (f'{number:0{len(first)}}' for number in range(int(first), int(last) + 1))
        return [
            file
            for n in names
            for file in files(path[: numbers.start()] + n + path[numbers.end() :], suffixes)
        ]
    place = pathlib.Path(path)
    if place.is_dir():
        beneath = folders.walk(path)
        found = [str(place / name) for name in beneath.names if name.endswith(suffixes)]
        if beneath.left_out:
            log.warning('%s: left out %s.', path, folders.counted(beneath.left_out))
    else:
        found = [path] if place.is_file() else glob.glob(path)
    if not found:
        raise FileNotFoundError(
            f'No {" or ".join(suffixes)} file at {path!r}; give --config.data.path a file, a folder of them, or a '
            "pattern such as 'data/*.tar' or 'data/{00000..00041}.tar'."
        )
    return sorted(found)


def stamp(paths: Iterable[str]) -> str:
    """Changes when one of the files does: of their paths, sizes and times."""
    digest = hashlib.sha256()
    for path in paths:
        stat = os.stat(path)
        digest.update(f'{os.path.abspath(path)}\n{stat.st_size} {stat.st_mtime_ns}\n'.encode())
    return digest.hexdigest()[:32]


def place(kind: str, key: str, suffix: str) -> pathlib.Path:
    """Path at which `kept` has the file of a kind and a key."""
    return cache_folder() / kind / f'{key}{suffix}'


def kept(kind: str, key: str, make: Callable[[pathlib.Path], None], suffix: str) -> pathlib.Path:
    """The file of a kind and a key in the cache folder; make(path) writes it when it is not there yet."""
    target = place(kind, key, suffix)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as partial:  # two processes may make it at once
            make(partial)
    return target


def arrays(kind: str, key: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays by name that `make` gives, or gave before."""

    def save(partial):
        with open(partial, 'wb') as file:  # to a path, NumPy adds a suffix
            np.savez(file, **make())

    path = kept(kind, key, save, '.npz')
    with np.load(path, allow_pickle=False) as found:
        return dict(found)
