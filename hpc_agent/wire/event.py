"""Console output as ClearML's ``log`` events (docs/internals/clearml-protocol.md#log-events)."""

from __future__ import annotations

import json
from typing import Any

from hpc_agent.domain.ids import TaskId, WorkerId

MAX_MESSAGE_BYTES = 64 * 1024
"""Text in one event: the reference agent sends up to this much, which servers and web pages accept."""

_OTHER_FIELDS_BYTES = 200
"""Size of an event's other fields."""


def log_event(task: TaskId, worker: WorkerId, text: str, timestamp_ms: int, *, level: str = "DEBUG") -> dict[str, Any]:
    """Event with any number of lines. Events of a task are shown in the order of their timestamps."""
    return {
        "type": "log",
        "level": level,
        "task": task,
        "worker": worker,
        "msg": text,
        "timestamp": timestamp_ms,
    }


def sent_bytes(text: str) -> int:
    """Approximate size of an event with this text in a request."""
    return len(json.dumps(text)) + _OTHER_FIELDS_BYTES
