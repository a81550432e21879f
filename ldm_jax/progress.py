"""How long work shows itself: a bar with an estimate on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar('T')


class Meter:
    """A count that rises to its total, shown on standard error.

    Args:
        total: where it ends, what an earlier run did included.
        what: the work's name, such as 'training'.
        done: where it begins.
        every: seconds between lines when standard error is no terminal.
        unit: of the count, such as 'MB'; nothing for plain numbers of things.
    """

    def __init__(self, total: int, what: str, done: int = 0, every: float = 30.0, unit: str = ''):
        self._total, self._what, self._done, self._every, self._unit = total, what, done, every, unit
        self._first, self._start = done, time.monotonic()
        self._last = self._start
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=what, initial=done, unit=unit or 'it', dynamic_ncols=True)

    def advance(self, count: int = 1) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last >= self._every or self._done == self._total:
            self._last = now
            left = (now - self._start) / (self._done - self._first) * (self._total - self._done)
            unit = self._unit and f' {self._unit}'
            print(
                f'{self._what}: {self._done} of {self._total}{unit}, {left:.0f} s left',
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def progress(items: Iterable[T], total: int, what: str, done: int = 0, every: float = 30.0) -> Iterator[T]:
    """The items, counted as they are taken; the arguments are those of Meter."""
    meter = Meter(total, what, done, every)
    try:
        for item in items:
            yield item
            meter.advance()
    finally:
        meter.close()
