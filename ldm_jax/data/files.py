"""The files of an image folder, which may be a zip file."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import zipfile
import zlib
from typing import Any

from ldm_jax.data import folders, index
from ldm_jax.data.corrupt import Corrupt


@dataclasses.dataclass(frozen=True)
class Files:
    """The files in a folder or a zip file, by their paths in it."""

    path: str

    @property
    def names(self) -> list[str]:
        """All of them but hidden ones, in order."""
        return self._found.names

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Reason -> names of those that are not among them."""
        return self._found.left_out

    @property
    def stamp(self) -> str:
        """Changes when a file does."""
        return index.stamp([self.path] if self._zip else [f'{self.path}/{name}' for name in self.names])

    def read(self, name: str) -> bytes:
        """Raises Corrupt when the file is not there, or damaged."""
        try:
            return self._zip.read(name) if self._zip else (pathlib.Path(self.path) / name).read_bytes()
        except (KeyError, FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise Corrupt(name, f'not in {self.path}') from None
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            RuntimeError,
        ) as error:  # the last: encrypted
            raise Corrupt(name, str(error)) from None

    @functools.cached_property
    def _found(self) -> folders.Found:
        if self._zip:
            return folders.visible(entry.filename for entry in self._zip.infolist() if not entry.is_dir())
        return folders.walk(self.path)

    @functools.cached_property
    def _zip(self) -> zipfile.ZipFile | None:
        return zipfile.ZipFile(self.path) if pathlib.Path(self.path).is_file() else None

    def __getstate__(self) -> dict[str, Any]:
        # Opened anew elsewhere.
        return {name: value for name, value in self.__dict__.items() if name != '_zip'}
