"""Simulated time: events in their order, and a clock for each program that does something in one of them."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import count

from hpc_agent.clock import Waitable


class Timeline:
    """Events in the order of their times; nothing sleeps."""

    def __init__(self) -> None:
        self.start = datetime.now(timezone.utc)
        """Of the simulation. Slurm's driver compares times with those of this machine."""
        self.seconds = 0.0
        """Since then."""
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Have ``event`` happen ``seconds`` from now."""
        heapq.heappush(self._due, (self.seconds + seconds, next(self._order), event))

    def run_until(self, seconds: float) -> None:
        """Let all events happen that are due by then."""
        while self._due and self._due[0][0] <= seconds:
            self.seconds, _, event = heapq.heappop(self._due)
            event()
        self.seconds = seconds


class ProgramClock:
    """A ``hpc_agent.clock.Clock`` of one program. Where it sleeps within an event its own time goes on, and that of the
    others does not: ``ahead`` is by how much.

    A thread that the program starts, such as the heartbeat of a lease, waits until its event is set.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._owner = threading.get_ident()
        self.ahead = 0.0

    def now(self) -> datetime:
        return self._timeline.start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return self._timeline.seconds + self.ahead

    def sleep(self, seconds: float) -> None:
        self.ahead += seconds

    def wait(self, event: Waitable, seconds: float) -> bool:
        if threading.get_ident() != self._owner:
            return event.wait()
        if event.wait(0):
            return True
        self.ahead += seconds
        return event.wait(0)
