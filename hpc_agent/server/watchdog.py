"""Watchdog thread: stops silent tasks, removes silent workers, keys of ended tasks and old events.

See docs/internals/clearml-protocol.md#watchdog.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from hpc_agent.clock import Clock
from hpc_agent.domain.status import TaskStatus
from hpc_agent.logs import EventLog
from hpc_agent.server.action import Transaction, iso
from hpc_agent.server.services.auth import delete_ended_keys
from hpc_agent.server.services.transitions import change_status
from hpc_agent.server.services.workers import forget_expired
from hpc_agent.server.store import query as q
from hpc_agent.server.store import usage_history
from hpc_agent.server.store.connection import DocumentStore
from hpc_agent.server.store.documents import queues, tasks
from hpc_agent.server.store.query import Query
from hpc_agent.server.store.retention import forget_old_events

SILENT_AFTER = timedelta(seconds=7200)
MESSAGE = "Forced stop (non-responsive)"
_INTERVAL = 60.0

log = EventLog("server.watchdog")


def sweep(store: DocumentStore, now: datetime) -> list[str]:
    """One pass; returns the ids of the tasks that it stopped."""
    with store.write() as db:
        at = Transaction(db, now)
        silent = Query(
            (
                q.compare(q.field(tasks.table, "status"), "=", TaskStatus.IN_PROGRESS.value),
                q.compare(q.field(tasks.table, "last_update"), "<", iso(now - SILENT_AFTER)),
            ),
            fields=("status",),
        )
        stopped = [task["id"] for task in tasks.find(db, silent)]
        for task in stopped:
            change_status(
                at,
                {"id": task, "status": TaskStatus.IN_PROGRESS.value},
                TaskStatus.STOPPED,
                reason=MESSAGE,
                message=MESSAGE,
                also={"completed": at.time},
            )
        forget_expired(db, now)
        delete_ended_keys(at)
        moment = int(now.timestamp() * 1000)
        for queue in queues.find(db, Query(fields=("id",))):
            usage_history.add_queue_length(db, queue["id"], moment, at.time)
        usage_history.forget(db, moment - usage_history.KEPT_MS)
    return stopped


class Watchdog:
    """Sweeps once a minute in a thread, until stopped. Use as a context manager."""

    def __init__(self, store: DocumentStore, clock: Clock, keep_events: timedelta | None = None) -> None:
        """``keep_events``: how long ended tasks keep their events; None: forever."""
        self._store = store
        self._clock = clock
        self._keep_events = keep_events
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._clock.wait(self._over, _INTERVAL):
            try:
                for task in sweep(self._store, self._clock.now()):
                    log.warning("task.stopped_as_silent", task=task)
                if self._keep_events is not None:
                    forget_old_events(self._store, self._clock.now(), self._keep_events, self._over.is_set)
                self._store.fold()
            except Exception:  # noqa: BLE001 - the top of a loop that must go on
                log.error("watchdog.failed", trace=True)
