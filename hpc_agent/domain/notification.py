"""Notifications about tasks: the events, and the JSON body that programs get. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import msgspec

from hpc_agent.domain import duration
from hpc_agent.domain.ids import TaskId


class TaskEvent(str, Enum):
    """Events that may be reported; the values are stable, for programs that read them."""

    STARTED = "task.started"
    COMPLETED = "task.completed"
    FAILED = "task.failed"
    STOPPED = "task.stopped"
    WAITING = "task.waiting"
    """It has waited for longer than ``hpc.notify.waiting_after``."""

    @property
    def setting(self) -> str:
        """Name of its block in ``hpc.notify``."""
        return self.value.partition(".")[2]


class Notification(msgspec.Struct, frozen=True):
    """One event of one task. Empty: not known."""

    event: TaskEvent
    task: TaskId
    at: datetime
    """UTC."""
    reason: str = ""
    """Status reason of a task that ended."""
    waiting_seconds: float = 0.0
    queue: str = ""
    job: str = ""
    host: str = ""
    cluster: str = ""
    name: str = ""
    project: str = ""
    """Id."""
    url: str = ""
    """Its page."""

    @property
    def text(self) -> str:
        """One sentence; chat programs show it (``text`` of their webhooks)."""
        title = f'task "{self.name}" ({self.task})' if self.name else f"task {self.task}"
        where = f" on {self.host}" if self.host else ""
        match self.event:
            case TaskEvent.STARTED:
                return f"{title} has started{where}"
            case TaskEvent.COMPLETED:
                return f"{title} has completed{where}"
            case TaskEvent.WAITING:
                queue = f" in queue {self.queue}" if self.queue else ""
                return f"{title} has been waiting{queue} for {duration.format_duration(self.waiting_seconds)}"
            case _:
                word = "failed" if self.event is TaskEvent.FAILED else "was stopped"
                return f"{title} {word}{where}{f': {self.reason}' if self.reason else ''}"

    def body(self) -> dict[str, object]:
        """What webhooks and commands get, as JSON."""
        return {
            "event": self.event.value,
            "text": self.text,
            "task": self.task,
            "name": self.name,
            "project": self.project,
            "queue": self.queue,
            "cluster": self.cluster,
            "job": self.job,
            "host": self.host,
            "reason": self.reason,
            "waiting_seconds": round(self.waiting_seconds),
            "url": self.url,
            "at": self.at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
