"""ClearML's queue object → ``domain.queue.Queue``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.queue import Queue, QueueEntry


def queue_from_wire(data: Mapping[str, Any]) -> Queue:
    """The queue in a ``queues.get_all`` or ``queues.get_by_id`` answer, entries in running order."""
    entries = []
    for entry in data.get("entries") or ():
        task = entry.get("task")
        # queues.get_all_ex answers with task objects where get_all has ids.
        identifier = task.get("id") if isinstance(task, Mapping) else task
        if identifier:
            entries.append(QueueEntry(TaskId(str(identifier)), str(entry.get("added") or "")))
    return Queue(
        QueueId(str(data["id"])), str(data.get("name") or ""), tuple(entries), tuple(map(str, data.get("tags") or ()))
    )
