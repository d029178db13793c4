"""``events.*``: sending console output and reading it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.api.session import Session
from hpc_agent.domain.ids import TaskId, WorkerId
from hpc_agent.errors import ApiError
from hpc_agent.retry import Budget

_PAGE = 500
"""Log events in one answer."""


class Events:
    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, events: Sequence[Mapping[str, Any]], *, budget: Budget) -> int:
        """Send events; returns how many were stored. 0 means that the server wants none of them (a deleted task).

        Raises:
            ServerUnreachableError: no usable answer; where that is uncertain, ask for their ``stamps`` before sending
                them again, or they may be there twice.
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

    def stamps(self, task: TaskId, worker: WorkerId, first_ms: int, last_ms: int) -> set[int]:
        """The time stamps in this range of the worker's log events that the server has."""
        found: set[int] = set()
        after = first_ms - 1
        while after < last_ms:
            events = self._page(task, after)
            found |= {int(e["timestamp"]) for e in events if e.get("worker") == worker}
            latest = max((int(event["timestamp"]) for event in events), default=last_ms)
            if len(events) < _PAGE or latest <= after:
                break
            after = latest
        return {stamp for stamp in found if first_ms <= stamp <= last_ms}

    def console_after(self, task: TaskId, timestamp_ms: int) -> list[dict[str, Any]]:
        """Log events later than ``timestamp_ms``, oldest first, as the server has them; at most a page of them."""
        return sorted(self._page(task, timestamp_ms), key=lambda event: int(event["timestamp"]))

    def _page(self, task: TaskId, after_ms: int) -> list[dict[str, Any]]:
        query: dict[str, Any] = {"task": task, "batch_size": _PAGE, "order": "asc", "navigate_earlier": False}
        if after_ms:
            query["from_timestamp"] = after_ms
        answer = self._session.call("events.get_task_log", query)
        return [event for event in answer.get("events") or () if int(event["timestamp"]) > after_ms]
