"""Wake-up of a waiting thread by its signal handlers.

``threading.Event`` is not for them: a handler that sets one while the same thread is inside of ``wait`` or ``clear``
waits forever for the lock of the event, which that thread holds.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress


class WakeUp:
    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._reads, False)
        os.set_blocking(self._writes, False)

    def set(self) -> None:
        """End the ``wait`` that goes on, or the next one."""
        with suppress(BlockingIOError):  # it is full: set often enough
            os.write(self._writes, b"\0")

    def wait(self, seconds: float) -> None:
        """Return when it is set, and not yet waited for since, or after ``seconds``."""
        select.select([self._reads], [], [], max(seconds, 0))
        with suppress(BlockingIOError):  # not set
            while os.read(self._reads, 4096):
                pass
