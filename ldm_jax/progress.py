"""How long work shows itself: a bar with an estimate on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar('T')


def progress(items: Iterable[T], total: int, what: str, done: int = 0, every: float = 30.0) -> Iterator[T]:
    """The items, counted as they are taken.

    Args:
        total: how many there will be, those of an earlier run included.
        what: the work's name, such as 'training'.
        done: how many an earlier run did.
        every: seconds between lines when standard error is no terminal.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, initial=done, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for i, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= every or done + i == total:
            last = now
            left = (now - start) / i * (total - done - i)
            print(f'{what}: {done + i} of {total}, {left:.0f} s left', file=sys.stderr, flush=True)
