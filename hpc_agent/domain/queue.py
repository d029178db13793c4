"""ClearML queue, as one request shows it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from hpc_agent.domain.ids import QueueId, TaskId


class QueueEntry(NamedTuple):
    """A task waiting in a queue. ``added`` is the server's own time stamp text: with it an entry is unique,
    a task that left and came back has another one."""

    task: TaskId
    added: str


class Queue(msgspec.Struct, frozen=True):
    """``entries`` are in the order in which they are to run."""

    id: QueueId
    name: str
    entries: tuple[QueueEntry, ...] = ()
    tags: tuple[str, ...] = ()
