"""Retention of events: what ended tasks reported is deleted after a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.store.connection import DocumentStore, StoreSession

_ENDED = (TaskStatus.STOPPED, TaskStatus.CLOSED, TaskStatus.FAILED, TaskStatus.COMPLETED)
_OLD = f"last_update < ? AND status IN ({', '.join(repr(status.value) for status in _ENDED)})"
"""Published tasks keep their events: that is what they were published for."""
_ROWS = 5000
"""Of one transaction: other writers wait for it for milliseconds."""
_TASKS = 100

_PARTS = (
    "DELETE FROM console WHERE id IN (SELECT id FROM console WHERE task = ? LIMIT ?)",
    "DELETE FROM reports WHERE (task, type, metric, variant, iter) IN "
    "(SELECT task, type, metric, variant, iter FROM reports WHERE task = ? LIMIT ?)",
    "DELETE FROM scalar_points WHERE (series, iter) IN (SELECT p.series, p.iter FROM scalar_points p "
    "JOIN scalar_series s ON s.id = p.series WHERE s.task = ? LIMIT ?)",
    "DELETE FROM scalar_series WHERE id IN (SELECT id FROM scalar_series WHERE task = ? LIMIT ?)",
)


def forget_old_events(
    store: DocumentStore, now: datetime, kept: timedelta, is_over: Callable[[], bool] = lambda: False
) -> int:
    """Delete the events of tasks that ended, and that nothing has changed since ``kept`` ago; stops early once
    ``is_over``. Returns how many rows were deleted."""
    before = (now - kept).isoformat(timespec="microseconds")
    deleted = 0
    while not is_over():
        with store.read() as db:
            found = _tasks_with_old_events(db, before)
        if not found:
            break
        for task in found:
            for part in _PARTS:
                while not is_over() and (rows := _delete(store, part, task, before)):
                    deleted += rows
    return deleted


def _tasks_with_old_events(db: StoreSession, before: str) -> list[str]:
    rows = db.rows(
        f"SELECT id FROM tasks t WHERE {_OLD} AND (EXISTS (SELECT 1 FROM console WHERE task = t.id) "
        "OR EXISTS (SELECT 1 FROM reports WHERE task = t.id) "
        "OR EXISTS (SELECT 1 FROM scalar_series WHERE task = t.id)) LIMIT ?",
        (before, _TASKS),
    )
    return [row[0] for row in rows]


def _delete(store: DocumentStore, part: str, task: str, before: str) -> int:
    with store.write(durable=False) as db:
        # It may have been started again meanwhile.
        is_old = db.row(f"SELECT 1 FROM tasks WHERE id = ? AND {_OLD}", (task, before))
        return db.run(part, (task, _ROWS)) if is_old else 0
