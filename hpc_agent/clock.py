"""Clock: the only module that reads the time or sleeps; passed in, so that tests own time."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Protocol


class Waitable(Protocol):
    """What a thread waits for: ``threading.Event``, ``wake_up.WakeUp``."""

    def wait(self, timeout: float | None = None) -> bool:
        """Return True as soon as it is set, False after ``timeout`` seconds."""


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall time, UTC, timezone-aware."""

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps."""

    def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""

    def wait(self, event: Waitable, seconds: float) -> bool:
        """Return True as soon as ``event`` is set, False after ``seconds``."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self, event: Waitable, seconds: float) -> bool:
        return event.wait(seconds)


SYSTEM: Clock = SystemClock()
