"""Cancellation of work in a thread: it ends at its next wait, by an exception that this wait raises.

No signal handler raises anything: an exception out of a handler can strike inside a ``finally`` and cut it short. Waits
that look for a request are ``CancellableClock.sleep`` and the programs that ``process`` runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TypeVar

from hpc_agent.clock import Clock, Waitable

T = TypeVar("T")

POLL_S = 0.2
"""How long a request waits at most for a wait to notice it."""


class Cancelled(BaseException):
    """The work was cancelled. As with ``asyncio.CancelledError``, no handler of errors takes it for a failure."""


class _Request:
    def __init__(self, is_requested: Callable[[], bool]) -> None:
        self.is_requested = is_requested
        self.delivered = False


_request: ContextVar[_Request | None] = ContextVar("request", default=None)


@contextmanager
def cancelled_when(is_requested: Callable[[], bool]) -> Iterator[None]:
    """Waits of this thread inside raise ``Cancelled`` once ``is_requested`` is true. One does: cleaning up may wait."""
    token = _request.set(_Request(is_requested))
    try:
        yield
    finally:
        _request.reset(token)


def is_cancellable() -> bool:
    """Whether this thread's work may be cancelled, so that its waits have to look for a request."""
    request = _request.get()
    return request is not None and not request.delivered


def check() -> None:
    """
    Raises:
        Cancelled: this thread's work is to end, and has not seen that yet.
    """
    request = _request.get()
    if request is not None and not request.delivered and request.is_requested():
        request.delivered = True
        raise Cancelled


class CancellableClock:
    """A clock whose ``sleep`` raises ``Cancelled``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        end = self._clock.monotonic() + seconds
        check()
        while (left := end - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, POLL_S) if is_cancellable() else left)
            check()

    def wait(self, event: Waitable, seconds: float) -> bool:
        """As the clock that it wraps: other threads than the work's wait here, e.g. heartbeats."""
        return self._clock.wait(event, seconds)


def in_background(call: Callable[[], T], name: str) -> Future[T]:
    """Call in a daemon thread, which holds up no exit of the program: those of an executor are joined then, and one
    that waits for a stalled file server would keep the program for as long."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
