"""``events.*``: sending console output and reading it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.api.session import Session
from hpc_agent.domain.ids import TaskId
from hpc_agent.errors import ApiError
from hpc_agent.retry import Budget


class Events:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, events: Sequence[Mapping[str, Any]], *, budget: Budget) -> int:
        """Send events; returns how many were stored. 0 means that the server wants none of them (a deleted task).

        Raises:
            ServerUnreachableError: no usable answer; sending them again is right.
        """
        if not events:
            return 0
        try:
            answer = self._session.call_lines("events.add_batch", events, budget=budget)
        except ApiError as error:
            if error.code == 400:
                return 0
            raise
        return int(answer.get("added") or 0)

    def console_after(self, task: TaskId, timestamp_ms: int) -> list[dict[str, Any]]:
        """Log events later than ``timestamp_ms``, oldest first, as the server has them."""
        found: list[dict[str, Any]] = []
        query = {"task": task, "batch_size": 500, "order": "asc", "navigate_earlier": False}
        if timestamp_ms:
            query["from_timestamp"] = timestamp_ms
        answer = self._session.call("events.get_task_log", query)
        found = [event for event in answer.get("events") or () if int(event["timestamp"]) > timestamp_ms]
        return sorted(found, key=lambda event: int(event["timestamp"]))
