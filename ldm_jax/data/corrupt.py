"""Examples that cannot be read: skipped, counted and named, up to a share of them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

from ldm_jax.errors import Failed

FEWEST = 10  # corrupt examples before their share means anything

log = logging.getLogger(__name__)


class Corrupt(ValueError):
    """An example cannot be read.

    Attributes:
        name: of the example: its file, or its row of a file.
        reason: in a few words.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both, so that it survives pickling between processes
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f'{self.name}: {self.reason}'


class TooManyCorrupt(Failed):
    """More of the examples cannot be read than a run puts up with."""


@dataclasses.dataclass
class Report:
    """Counts of the examples read so far, and the names of the corrupt ones.

    Attributes:
        limit: the share of the examples that may be corrupt, 0 to 1; judged from the tenth corrupt one on.
        read: examples read, with each reading of the same one.
        skipped: readings that failed.
        names: name -> reason of each example that failed, in the order of their discovery.
    """

    limit: float = 0.1
    read: int = 0
    skipped: int = 0
    names: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not 0 <= self.limit <= 1:
            raise ValueError(f'The share of corrupt examples to put up with is 0 to 1; got {self.limit}.')

    def add(self, read: int, failures: Iterable[tuple[str, str]] = ()) -> None:
        """Counts what a batch took; logs each failure that is new. Raises TooManyCorrupt beyond the limit."""
        self.read += read
        for name, reason in failures:
            self.skipped += 1
            if name not in self.names:
                self.names[name] = reason
                log.warning('skipped a corrupt example, %d so far: %s: %s', len(self.names), name, reason)
        if self.skipped >= FEWEST and self.skipped > self.limit * (self.read + self.skipped):
            raise TooManyCorrupt(
                f'{self.skipped} of {self.read + self.skipped} examples could not be read, more than the share of '
                f'{self.limit} that is allowed (max_corrupt). The last: {_last(self.names)}'
            )

    def __str__(self) -> str:
        met = 'once' if self.skipped == 1 else f'{self.skipped} times'
        return f'{self.read} examples read; corrupt and left out: {len(self.names)}, met {met}'


def _last(names: dict[str, str], count: int = 3) -> str:
    """The last few names with their reasons, as a message quotes them."""
    return '; '.join(f'{name}: {reason}' for name, reason in list(names.items())[-count:])
