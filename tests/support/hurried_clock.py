"""A clock on which hours pass at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone


class HurriedClock:
    """Time passes when somebody sleeps; ``events`` happen at their moment."""

    def __init__(self, begin: datetime | None = None) -> None:
        self.begin = begin or datetime.now(timezone.utc)
        self.seconds = 0.0
        self.behind = 0.0
        """Seconds by which its wall time is off."""
        self.events: list[tuple[float, Callable[[], object]]] = []

    def now(self) -> datetime:
        return self.begin + timedelta(seconds=self.behind + self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for event in [event for event in self.events if event[0] <= self.seconds]:
            self.events.remove(event)
            event[1]()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if not event.is_set():
            self.sleep(seconds)
        return event.is_set()
