"""``workers.*``: being seen on the server's list of workers. None of it is needed to run a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.api.session import Session
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.retry import ONCE


class Workers:
    def __init__(self, session: Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    def register(self, worker: WorkerId, queues: Sequence[QueueId], tags: Sequence[str] = ()) -> None:
        self._session.call("workers.register", {"worker": worker, "queues": list(queues), "tags": list(tags)})

    def unregister(self, worker: WorkerId) -> None:
        self._session.call("workers.unregister", {"worker": worker}, budget=ONCE)

    def report(
        self,
        worker: WorkerId,
        *,
        queues: Sequence[QueueId] = (),
        task: TaskId | None = None,
        stats: Mapping[str, Any] | None = None,
    ) -> None:
        """A status report; ``stats`` are the machine_stats of wire.md 3.10."""
        payload: dict[str, Any] = {
            "worker": worker,
            "timestamp": int(self._clock.now().timestamp()) * 1000,
            "queues": list(queues),
            "machine_stats": stats,
        }
        if task is not None:
            payload["task"] = task
        self._session.call("workers.status_report", payload, budget=ONCE)

    def all(self) -> list[dict[str, Any]]:
        """Every worker the server knows, as it describes them."""
        found: list[dict[str, Any]] = self._session.call("workers.get_all", {"last_seen": 0})["workers"]
        return found
