"""Turns at the database's only writer: calls that change state go before events, each kind in the order it came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class WriterTurns:
    """Lock whose waiting threads are served in order. Without the order a flood of events, which takes the lock again
    the moment it has left it, could keep a call waiting for as long as the flood lasts."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._urgent: deque[threading.Event] = deque()
        self._others: deque[threading.Event] = deque()

    @property
    def waiting(self) -> int:
        """Threads that wait for their turn."""
        return len(self._urgent) + len(self._others)

    @contextmanager
    def turn(self, *, urgent: bool) -> Iterator[None]:
        """Wait for a turn, and have it until the block ends."""
        with self._guard:
            mine = threading.Event() if self._taken else None
            self._taken = True
            if mine:
                (self._urgent if urgent else self._others).append(mine)
        if mine:
            mine.wait()
        try:
            yield
        finally:
            with self._guard:
                waiting = self._urgent or self._others
                if waiting:
                    waiting.popleft().set()
                else:
                    self._taken = False
