"""Wake-up of a waiting thread, by its own signal handlers and by other threads.

``threading.Event`` is not for handlers: one that sets an event while the thread that it interrupts is inside of
``wait``, ``set`` or ``clear`` waits forever for the lock of the event, which that thread holds.
"""

from __future__ import annotations

import os
import select
import signal
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress

TERMINATION = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask a program in the background to end."""


class WakeUp:
    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._reads, False)
        os.set_blocking(self._writes, False)
        # Not at the exit of the program: a handler may still be called then.
        weakref.finalize(self, _close, self._reads, self._writes).atexit = False

    def on_signals(self, numbers: Iterable[int], handler: Callable[[], object]) -> None:
        """Have ``handler`` called at these signals, and the wait ended; to be called in the main thread.

        The handler alone does not end each wait: Python calls handlers between two steps of a program, and one whose
        signal comes after the last step before the wait blocks is called when that has ended. The descriptor is written
        by the system's own handler.
        """
        for number in numbers:
            signal.signal(number, lambda *_: handler())
        signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)

    def set(self) -> None:
        """End the ``wait`` that goes on, or the next one."""
        with suppress(BlockingIOError):  # it is full: set often enough
            os.write(self._writes, b"\0")

    def wait(self, timeout: float | None = None) -> bool:
        """Return True when it is set, and not yet waited for since; False after ``timeout`` seconds."""
        is_set, _, _ = select.select([self._reads], [], [], None if timeout is None else max(timeout, 0))
        with suppress(BlockingIOError):  # not set
            while os.read(self._reads, 4096):
                pass
        return bool(is_set)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
