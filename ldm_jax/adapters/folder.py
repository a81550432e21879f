"""A folder of adapters, found by name as A1111's web UI finds them, or by the hash that an image's text names."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from ldm_jax.adapters import files
from ldm_jax.build import unknown

SHORT = 12  # digits of a hash that the web UI shows


def find(name: str, folder: str | None = None, hashes: Mapping[str, str] | None = None) -> pathlib.Path:
    """The file of an adapter.

    Args:
        name: a path, a repository on the hub, or the name of a file of the folder without its ending.
        folder: searched with the folders in it.
        hashes: name -> first digits of a hash, by which a file is found that was renamed.

    Raises:
        FileNotFoundError: there is none, naming the nearest of the folder.
        ValueError: several of that name, or as `files.locate`.
    """
    if folder is None:
        return files.locate(name)
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f'--adapters is a folder of adapters; there is none at {folder!r}.')
    have = sorted(path for path in root.rglob('*') if path.suffix in files.SUFFIXES and path.is_file())
    found = [
        path for path in have if name in (path.stem, path.name, str(path.relative_to(root).with_suffix('')))
    ]
    if len(found) > 1:
        shown = [str(path.relative_to(root)) for path in found]
        raise ValueError(f'{folder} has several adapters {name!r}: {shown}. Name the path of one.')
    if found:
        return found[0]
    if pathlib.Path(name).exists():
        return files.locate(name)
    wanted = (hashes or {}).get(name)
    for path in have if wanted else ():
        if files.file_hash(path).startswith(wanted.lower()):
            return path
    raise FileNotFoundError(str(unknown('adapter', name, [path.stem for path in have])))


def short_hash(adapter: files.Adapter) -> str:
    """The digits of an adapter's hash that go into an image's text."""
    return adapter.hash[:SHORT]
