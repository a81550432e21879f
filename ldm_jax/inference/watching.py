"""Progress of the runs within a call, for whoever calls: a bar, previews, a way to stop.

with watched(listener):
    text_to_image(pipeline, 'a red apple')
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Step:
    """How far a run of the sampler has come."""

    done: int
    total: int
    # The latents [b, h, w, Z] that this step was heading for, of the batch in hand.
    x0: Callable[[], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]  # latents to images [b, H, W, 3] in [-1, 1]


Listener = Callable[[Step], None]

_listener: contextvars.ContextVar[Listener | None] = contextvars.ContextVar('listener', default=None)


@contextlib.contextmanager
def watched(listener: Listener | None) -> Iterator[None]:
    """Calls the listener after each step of the runs within. Steps then are separate calls of the same program."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listening() -> Listener | None:
    """The listener of the call that this runs in."""
    return _listener.get()
