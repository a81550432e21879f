"""The files in a folder and beneath, and which of them are left out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping

HIDDEN, LOOPS, BROKEN, CLOSED = (
    'hidden',
    'links to a folder above',
    'links to nothing',
    'folders not readable',
)
SHOWN = 3  # names of a reason that a message quotes


@dataclasses.dataclass
class Found:
    """Files by their paths from the folder, '/' between the parts, in order.

    Attributes:
        names: the files.
        left_out: reason -> names that are left out.
    """

    names: list[str] = dataclasses.field(default_factory=list)
    left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Notes a name that is left out."""
        self.left_out.setdefault(reason, []).append(name)


def walk(root: str | os.PathLike) -> Found:
    """The files in a folder and in all folders beneath, those behind symbolic links too.

    Hidden is what has a name that starts with a dot. A link to a folder that it lies in is not followed.
    """
    found = Found()
    _walk(os.fspath(root), '', (_identity(os.stat(root)),), found)
    found.names.sort()
    return found


def visible(names: Iterable[str]) -> Found:
    """Divides paths into visible ones and those with a hidden part."""
    found = Found()
    for name in sorted(names):
        if any(part.startswith('.') for part in name.split('/')):
            found.leave_out(HIDDEN, name)
        else:
            found.names.append(name)
    return found


def counted(left_out: Mapping[str, list[str]]) -> str:
    """Describes what was left out: 'hidden: 2 (.a, .b); links to nothing: 1 (c)'."""
    return '; '.join(
        f'{reason}: {len(names)} ({", ".join(names[:SHOWN])}{", ..." if len(names) > SHOWN else ""})'
        for reason, names in left_out.items()
    )


def _walk(folder: str, inside: str, above: tuple[tuple[int, int], ...], found: Found) -> None:
    try:
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        found.leave_out(CLOSED, inside.rstrip('/') or folder)
        return
    for entry in entries:
        name = inside + entry.name
        if entry.name.startswith('.'):
            found.leave_out(HIDDEN, name)
        elif os.path.isdir(entry.path):  # entry.is_dir() raises for a link to itself
            here = _identity(os.stat(entry.path))
            if here in above:
                found.leave_out(LOOPS, name)
            else:
                _walk(entry.path, f'{name}/', (*above, here), found)
        elif os.path.isfile(entry.path):
            found.names.append(name)
        else:
            found.leave_out(BROKEN, name)


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino
