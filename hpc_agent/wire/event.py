"""Console output as ClearML's ``log`` events (docs/internals/clearml-protocol.md#log-events)."""

from __future__ import annotations

import json
from typing import Any

from hpc_agent.domain.ids import TaskId, WorkerId

MAX_MESSAGE_BYTES = 64 * 1024
"""The reference packs up to this much text into one event; servers and pages cope with it."""

_AROUND_TEXT = 200
"""Bytes of an event's other fields."""


def log_event(task: TaskId, worker: WorkerId, text: str, timestamp_ms: int, *, level: str = "DEBUG") -> dict[str, Any]:
    """One event holding any number of lines. Events of a task are shown in the order of their time stamps."""
    return {
        "type": "log",
        "level": level,
        "task": task,
        "worker": worker,
        "msg": text,
        "timestamp": timestamp_ms,
    }


def sent_bytes(text: str) -> int:
    """About how much of a request an event with this text takes."""
    return len(json.dumps(text)) + _AROUND_TEXT
