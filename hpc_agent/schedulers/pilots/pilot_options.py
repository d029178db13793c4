"""Options of one pilot, as the daemon sets them when it submits its job."""

from __future__ import annotations

from datetime import datetime

import msgspec


class PilotOptions(msgspec.Struct, frozen=True):
    """What one pilot is for. Times in seconds."""

    queue: str
    """Name of the queue whose tasks it runs."""
    job: str
    title: str
    """Of its job, for sentences."""
    restarts: int
    since: datetime
    """A time before it was submitted."""
    node: str
    cluster: str
    idle_time: float
    grace: float
    """From SIGTERM to SIGKILL."""
