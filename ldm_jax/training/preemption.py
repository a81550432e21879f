"""Stopping on request: the state at hand is saved first.

A scheduler that wants its machine back sends SIGTERM and waits some seconds, a person presses Ctrl-C. The first
signal asks the run to save and leave, whatever it is doing; the second ends the process at once. A program that
was stopped this way exits with EXIT_CODE, so that a launcher can tell 'run me again' from a failure.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar('T')

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preempted(Exception):
    """The run was asked to stop; its state has been saved."""


class Preemption:
    """Turns SIGTERM and SIGINT into Preempted, raised where the run can be left.

    As a context manager, of the main thread, it takes the two signals. Outside `deferred` the first of them
    raises Preempted wherever the program is; inside, only from `wait` and `check`. Without the context it
    does nothing, so that a library's user decides about signals.

    With jax.distributed all processes must stop at one step, though the signal reaches them at different
    times or only one: JAX itself takes SIGTERM then, and `check` asks its coordinator.
    """

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False
        self._old: dict[int, object] = {}

    def __enter__(self) -> Preemption:
        for number in SIGNALS:
            if number != signal.SIGTERM or not _distributed():
                self._old[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While there is a state to save: signals are remembered, and raised by `wait` and `check`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self, step: int) -> None:
        """Raises Preempted when the run shall stop after this many steps. Every process calls it at every step."""
        if _distributed():
            if multihost_utils.reached_preemption_sync_point(step):
                raise Preempted
        elif self.requested:
            raise Preempted

    def wait(self, future: concurrent.futures.Future[T]) -> T:
        """The future's result, or Preempted as soon as a signal comes; the work is then left to itself.

        With jax.distributed the result is waited for: one process must not leave alone.
        """
        if _distributed():
            return future.result()
        while not self.requested:
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return future.result(timeout=0.1)
            if future.done():  # the work itself raised a TimeoutError
                return future.result()
        raise Preempted

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested = True
        # Not print, which is not safe in a handler.
        os.write(2, b'asked to stop: saving; once more ends the run at once\n')
        if not self._deferred:
            raise Preempted


def in_thread(function: Callable[[], T]) -> concurrent.futures.Future[T]:
    """Starts a function in a thread of its own, which the end of the program does not wait for.

    The main thread stays free to take signals, which Python delivers there and only between its own
    instructions: not inside a compilation or a read.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def _distributed() -> bool:
    return jax.distributed.is_initialized()
