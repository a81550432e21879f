"""Compiled programs kept from one start to the next, and a word while one is being compiled.

XLA's programs are code: who can write the folder that they are read from can run anything as whoever reads it. So it
is private (mode 0700), and not used where it, or a folder above it, can be written by others.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import platform
import stat
import sys
import threading
import time
from typing import Any

from ldm_jax import atomic
from ldm_jax.cache import cache_folder

VARIABLE = 'JAX_COMPILATION_CACHE_DIR'  # JAX's own: whoever sets it has chosen a folder
WORTH = 0.5  # seconds: programs that compile faster are not kept
LIMIT = 8 * 2**30  # bytes: the programs that were used longest ago are removed beyond
PATIENCE = 1.5  # seconds until a compilation is mentioned
EVERY = 15.0  # seconds between its lines
TIMES = 'times.json'
LOWERING, COMPILING = (
    f'/jax/core/compile/{name}_duration' for name in ('jaxpr_to_mlir_module', 'backend_compile')
)
HIT = '/jax/compilation_cache/cache_hits'
RATIO = 45.0  # time of compiling over that of lowering, where nothing has been compiled yet


def start(use: bool = True) -> None:
    """Has JAX keep the programs that it compiles, if `use`, and reports compilations that take long.

    Where the folder cannot be trusted or made, that is said on standard error, and programs are compiled anew.
    """
    import jax

    folder = None
    if use and not os.environ.get(VARIABLE):
        try:
            folder = private(cache_folder() / 'compiled' / _machine())
        except OSError as error:
            print(f'compiled programs are not kept: {error}', file=sys.stderr)
            use = False
    jax.config.update('jax_enable_compilation_cache', use)
    if folder is not None:
        _prune(folder)
        jax.config.update('jax_compilation_cache_dir', str(folder))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', WORTH)
        jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
    _Teller.listen(folder)


def private(folder: pathlib.Path) -> pathlib.Path:
    """The folder, made with mode 0700 where it is not there.

    Raises PermissionError when others than its owner, who must be this user, can write it or a folder above it.
    """
    folder = folder.absolute()
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    if not hasattr(os, 'getuid'):  # Windows has no modes; its home folders are private
        return folder
    for path in (folder, *folder.resolve().parents):
        found = path.stat()
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        sticky = path != folder and found.st_mode & stat.S_ISVTX  # as /tmp: nobody renames another's folder
        if found.st_uid not in (os.getuid(), 0) or (shared and not sticky):
            raise PermissionError(
                f'others can write {path}, and who writes compiled programs runs code; '
                f'chmod go-w it, set LDM_JAX_CACHE to a folder of your own, or give --no_cache'
            )
    return folder


def _machine() -> str:
    """A name of this kind of machine: XLA's programs for one CPU may crash on another that shares the home folder."""
    try:
        lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    kind = [
        next((line for line in lines if line.startswith(word)), '')
        for word in ('model name', 'flags', 'Features')
    ]
    return f'{platform.machine()}-{hashlib.sha256(repr(kind).encode()).hexdigest()[:12]}'


def _prune(folder: pathlib.Path) -> None:
    found = sorted(
        ((file.stat(), file) for file in folder.glob('*-cache')),
        key=lambda pair: max(pair[0].st_atime, pair[0].st_mtime),
    )
    size = sum(status.st_size for status, _ in found)
    for status, file in found:
        if size <= LIMIT:
            break
        file.unlink(missing_ok=True)
        size -= status.st_size


class _Teller:
    """Reports on standard error a program that has been compiling for a while, and about how long that takes.

    JAX reports when lowering and compiling begin and end. A program that took long to lower takes long to compile; how
    much longer is remembered from one start to the next.
    """

    _listening: _Teller | None = None

    def __init__(self, folder: pathlib.Path | None):
        self._file = folder and folder / TIMES
        self._known = _read(self._file)  # (seconds of lowering, seconds of compiling)
        self._lowered = 0.0
        self._read = False  # from the cache, not compiled
        self._done: threading.Event | None = None

    @classmethod
    def listen(cls, folder: pathlib.Path | None) -> None:
        """Begins to listen, once for a process."""
        import jax

        if cls._listening is not None or not hasattr(jax.monitoring, 'register_scalar_listener'):
            return
        cls._listening = cls(folder)
        jax.monitoring.register_scalar_listener(cls._listening.began)
        jax.monitoring.register_event_duration_secs_listener(cls._listening.ended)
        jax.monitoring.register_event_listener(cls._listening.happened)

    def began(self, event: str, value: Any, **about: Any) -> None:
        if event != COMPILING:
            return
        self._done, self._read = threading.Event(), False
        name = str(about.get('fun_name') or 'a program').removeprefix('jit(').removesuffix(')')
        lowering, compiling = map(sum, zip(*(self._known or [(1.0, RATIO)]), strict=True))
        expected = self._lowered * compiling / lowering
        threading.Thread(target=_tell, args=(name, expected, self._done), daemon=True).start()

    def ended(self, event: str, seconds: float, **about: Any) -> None:
        if event == LOWERING:
            self._lowered = seconds
        if event != COMPILING or self._done is None:
            return
        self._done.set()
        if seconds > PATIENCE and self._lowered and not self._read:
            self._known = [*self._known, (self._lowered, seconds)][-20:]
            _write(self._file, self._known)

    def happened(self, event: str, **about: Any) -> None:
        if event == HIT:
            self._read = True


def _tell(name: str, expected: float, done: threading.Event) -> None:
    started, patience = time.monotonic(), PATIENCE
    about = f'the first time about {max(round(expected), round(PATIENCE))} s'
    while not done.wait(patience):
        passed = time.monotonic() - started
        print(f'compiling {name} ({about}): {passed:.0f} s so far', file=sys.stderr, flush=True)
        patience = EVERY


def _read(file: pathlib.Path | None) -> list[tuple[float, float]]:
    try:
        found = json.loads(file.read_text()) if file else []
        return [(float(lowering), float(compiling)) for lowering, compiling in found if lowering > 0]
    except (OSError, ValueError, TypeError):
        return []


def _write(file: pathlib.Path | None, known: list[tuple[float, float]]) -> None:
    if file is not None:
        atomic.write(file, json.dumps(known))
