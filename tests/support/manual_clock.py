"""The clock of the tests: a ``hpc_agent.clock.Clock`` on which hours pass at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from hpc_agent.clock import Waitable

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
"""When a clock begins that is given no other time."""


class ManualClock:
    """Time passes when a test calls ``advance``, or when the code under test sleeps.

    The thread that makes the clock is the only one whose ``wait`` lets time pass. In any other thread (the heartbeat of
    a lease, a watcher) ``wait`` returns when its event is set and not before: a loop in the background would otherwise
    run as fast as the processor allows, and take the time of the test with it.
    """

    def __init__(self, start: datetime = START) -> None:
        self.start = start
        self.seconds = 0.0
        """How much time has passed, which is also what ``monotonic`` answers."""
        self.sleeps: list[float] = []
        """The seconds of each ``sleep`` so far."""
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._owner = threading.get_ident()

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.advance(seconds)

    def wait(self, event: Waitable, seconds: float) -> bool:
        if threading.get_ident() != self._owner:
            return event.wait()
        if event.wait(0):
            return True
        self.advance(seconds)
        return event.wait(0)

    def advance(self, seconds: float = 0.0, *, hours: float = 0.0, days: float = 0.0) -> None:
        """Let time pass, and do what is due by then, the earliest first.

        Raises:
            ValueError: time would go back.
        """
        passed = seconds + hours * 3600 + days * 86400
        if passed < 0:
            raise ValueError(f"time goes forward, not by {passed:g} s")
        end = self.seconds + passed
        while self._due and self._due[0][0] <= end:
            moment, action = self._due.pop(0)
            self.seconds = max(self.seconds, moment)
            action()
        self.seconds = max(self.seconds, end)

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something once ``seconds`` have passed since the clock began, in the thread that lets them pass."""
        self._due.append((seconds, action))
        self._due.sort(key=lambda due: due[0])
