"""Packages of the npm registry, fetched by npm itself, checked, and read without being unpacked."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
import subprocess
import tarfile


@dataclasses.dataclass(frozen=True)
class Package:
    """A version of a package.

    Attributes:
        name: such as '@iconify-json/noto'.
        version: exactly.
        sha512: of its archive, in hexadecimal.
    """

    name: str
    version: str
    sha512: str

    @property
    def file(self) -> str:
        """The archive's name, as `npm pack` gives it."""
        return f'{self.name.removeprefix("@").replace("/", "-")}-{self.version}.tgz'

    def fetch(self, folder: str | os.PathLike) -> Archive:
        """The archive in a folder, where `npm pack` puts it unless it is there already.

        Raises:
            FileNotFoundError: it is not there, and there is no npm or no network.
            ValueError: the archive is not the one that sha512 says.
        """
        path = pathlib.Path(folder) / self.file
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            command = ['npm', 'pack', '--silent', f'{self.name}@{self.version}']
            try:
                subprocess.run(command, cwd=path.parent, check=True, capture_output=True, text=True)
            except FileNotFoundError:
                raise FileNotFoundError(
                    f'{self.file} is not in {folder}, and there is no npm to fetch it. Install npm (nodejs.org), or '
                    'put the archive there.'
                ) from None
            except subprocess.CalledProcessError as error:
                raise FileNotFoundError(f'{" ".join(command)}: {error.stderr.strip()[-300:]}') from None
        found = hashlib.sha512(path.read_bytes()).hexdigest()
        if found != self.sha512:
            raise ValueError(
                f'{path} has sha512 {found[:16]}..., not {self.sha512[:16]}...: delete it, and it is fetched anew.'
            )
        return Archive(str(path))


@dataclasses.dataclass(frozen=True)
class Archive:
    """The files of a package, by their names in it."""

    path: str

    @functools.cached_property
    def files(self) -> dict[str, bytes]:
        """All of them, read at once: a compressed archive has no access by name."""
        with tarfile.open(self.path) as archive:
            return {
                member.name.removeprefix('package/'): archive.extractfile(member).read()
                for member in archive
                if member.isreg()
            }

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        if name not in self.files:
            raise FileNotFoundError(f'{self.path} holds no {name}.')
        return self.files[name]
