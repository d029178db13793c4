"""Rows of queues: the tasks that wait in each, in order. A task waits in a queue once at most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from hpc_agent.server.store.connection import StoreSession


@dataclass(frozen=True)
class EntryRow:
    task: str
    added: str


def of_queue(db: StoreSession, queue: str, limit: int | None = None) -> list[EntryRow]:
    rows = db.rows(
        "SELECT task, added FROM queue_entries WHERE queue = ? ORDER BY position LIMIT ?",
        (queue, -1 if limit is None else limit),
    )
    return [EntryRow(*row) for row in rows]


def of_queues(db: StoreSession, queues: Iterable[str]) -> dict[str, list[EntryRow]]:
    """All entries of several queues in one question."""
    found: dict[str, list[EntryRow]] = defaultdict(list)
    listed = msgspec.json.encode(list(queues)).decode()
    for queue, task, added in db.rows(
        "SELECT queue, task, added FROM queue_entries WHERE queue IN (SELECT value FROM json_each(?)) "
        "ORDER BY queue, position",
        (listed,),
    ):
        found[queue].append(EntryRow(task, added))
    return found


def count(db: StoreSession, queue: str) -> int:
    row = db.row("SELECT count(*) FROM queue_entries WHERE queue = ?", (queue,))
    assert row is not None
    return int(row[0])


def holds(db: StoreSession, queue: str, task: str) -> bool:
    return db.row("SELECT 1 FROM queue_entries WHERE queue = ? AND task = ?", (queue, task)) is not None


def is_queued(db: StoreSession, task: str) -> bool:
    """Whether the task is in any queue."""
    return db.row("SELECT 1 FROM queue_entries WHERE task = ?", (task,)) is not None


def append(db: StoreSession, queue: str, task: str, added: str) -> None:
    """At the end of the queue, where it is not yet."""
    db.run(
        "INSERT INTO queue_entries (queue, task, added, position) "
        "SELECT ?, ?, ?, coalesce(max(position), 0) + 1 FROM queue_entries WHERE queue = ?",
        (queue, task, added, queue),
    )


def remove(db: StoreSession, queue: str, task: str) -> int:
    """1 for the caller that took it out, 0 for all others."""
    return db.run("DELETE FROM queue_entries WHERE queue = ? AND task = ?", (queue, task))


def remove_everywhere(db: StoreSession, task: str) -> int:
    return db.run("DELETE FROM queue_entries WHERE task = ?", (task,))


def remove_queue(db: StoreSession, queue: str) -> int:
    return db.run("DELETE FROM queue_entries WHERE queue = ?", (queue,))


def reorder(db: StoreSession, queue: str, tasks: Iterable[str]) -> None:
    """Number the entries in the order of ``tasks``, which are all that the queue holds."""
    db.run_many(
        "UPDATE queue_entries SET position = ? WHERE queue = ? AND task = ?",
        [(position, queue, task) for position, task in enumerate(tasks, 1)],
    )
