"""``workers.*``: an entry in the server's list of workers. A task runs without it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.api.answer import rows
from hpc_agent.api.session import ApiSession
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.errors import ApiError
from hpc_agent.retry import ONCE


class WorkersApi:
    def __init__(self, session: ApiSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._no_properties = False

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
        tags: Sequence[str] = (),
    ) -> None:
        """A status report; ``stats`` are the machine_stats of docs/internals/clearml-protocol.md#status-reports."""
        payload: dict[str, Any] = {
            "worker": worker,
            "timestamp": int(self._clock.now().timestamp()) * 1000,
            "queues": list(queues),
            "machine_stats": stats,
        }
        if task is not None:
            payload["task"] = task
        if tags:
            payload["tags"] = list(tags)
        self._session.call("workers.status_report", payload, budget=ONCE)

    def runtime_properties(self, worker: WorkerId) -> dict[str, Any]:
        """Runtime properties that users have set for this worker; empty on servers without such properties."""
        if self._no_properties:
            return {}
        try:
            answer = self._session.call("workers.get_runtime_properties", {"worker": worker}, budget=ONCE)
        except ApiError as error:
            # 404: an unknown action (docs/internals/clearml-protocol.md#error-codes), for as long as the server runs.
            self._no_properties = error.code == 404
            if error.code in (400, 404):
                return {}
            raise
        listed = rows(answer, "runtime_properties", optional=True)
        return {str(entry["key"]): entry.get("value") for entry in listed if "key" in entry}

    def all(self) -> list[dict[str, Any]]:
        """Every worker of the server, in its own fields."""
        return rows(self._session.call("workers.get_all", {"last_seen": 0}), "workers")
