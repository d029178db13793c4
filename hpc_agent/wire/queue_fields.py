"""ClearML's queue object → ``domain.queue.Queue``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc_agent.domain.ids import QueueId, TaskId, is_id
from hpc_agent.domain.queue import Queue, QueueEntry
from hpc_agent.logs import EventLog

log = EventLog("queues")


def queue_from_wire(data: object) -> Queue | None:
    """The queue in a ``queues.get_all`` or ``queues.get_by_id`` answer, entries in running order; None if it is not a
    queue. An entry without a task's id is ignored: the others are served."""
    if not isinstance(data, Mapping) or not is_id(data.get("id")):
        log.warning("queue.invalid", answer=repr(data)[:200])
        return None
    entries = [made for entry in _list(data.get("entries")) if (made := _entry(entry, str(data["id"])))]
    tags = tuple(str(tag) for tag in _list(data.get("tags")))
    return Queue(QueueId(str(data["id"])), str(data.get("name") or ""), tuple(entries), tags)


def _entry(entry: object, queue: str) -> QueueEntry | None:
    if not isinstance(entry, Mapping):
        entry = {}
    task = entry.get("task")
    # queues.get_all_ex answers with task objects where get_all has ids.
    identifier = task.get("id") if isinstance(task, Mapping) else task
    if not is_id(identifier):
        log.warning("queue.entry_invalid", queue=queue, id=repr(identifier)[:100])
        return None
    return QueueEntry(TaskId(str(identifier)), str(entry.get("added") or ""))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
