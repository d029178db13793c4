"""``events.*``: sending console output and reading it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.api.answer import rows, whole
from hpc_agent.api.session import ApiSession
from hpc_agent.domain.ids import TaskId, WorkerId
from hpc_agent.errors import ApiError, NotFoundError, ServerUnreachableError
from hpc_agent.logs import EventLog
from hpc_agent.retry import Budget
from hpc_agent.wire.error_kinds import EVENTS_NOT_ADDED

log = EventLog("events")

_PAGE = 500
"""Log events in one answer."""
_STORE_TROUBLE = "error when indexing"
"""In the reference server's refusal when its store took nothing (full, read-only); other refusals are for good."""


class EventsApi:
    def __init__(self, session: ApiSession) -> None:
        self._session = session

    def add(self, events: Sequence[Mapping[str, Any]], *, budget: Budget) -> int:
        """Send events; returns how many were stored. 0 means that the server refused them all for good (a deleted or
        published task); its reason is logged.

        Raises:
            ApiError: it was refused (413: the request is too large).
            ServerUnreachableError: no usable answer; if that is uncertain, ask for their ``timestamps`` before sending
                them again, or they may be stored twice.
        """
        if not events:
            return 0
        try:
            answer = self._session.call_lines("events.add_batch", events, budget=budget)
        except ApiError as error:
            if error.code != 400:
                raise
            if EVENTS_NOT_ADDED.matches(error) and _STORE_TROUBLE in str(error).lower():
                raise ServerUnreachableError(f"{error}; its store may be full", uncertain=False) from error
            log.warning("events.refused", events=len(events), error=error)
            return 0
        return whole(answer.get("added"))

    def timestamps(self, task: TaskId, worker: WorkerId, first_ms: int, last_ms: int, *, budget: Budget) -> set[int]:
        """Timestamps in this range of the worker's log events that the server has; none of a deleted task."""
        found: set[int] = set()
        after = first_ms - 1
        while after < last_ms:
            try:
                events = self._page(task, after, budget)
            except NotFoundError:
                return set()
            found |= {whole(e.get("timestamp")) for e in events if e.get("worker") == worker}
            latest = max((whole(event.get("timestamp")) for event in events), default=last_ms)
            if len(events) < _PAGE or latest <= after:
                break
            after = latest
        return {timestamp for timestamp in found if first_ms <= timestamp <= last_ms}

    def latest(self, task: TaskId, *, budget: Budget) -> int:
        """Timestamp of the task's last log event from any sender; 0 without any."""
        query = {"task": task, "batch_size": 1, "order": "desc", "navigate_earlier": True}
        try:
            events = rows(self._session.call("events.get_task_log", query, budget=budget), "events", optional=True)
        except NotFoundError:
            return 0
        return max((whole(event.get("timestamp")) for event in events), default=0)

    def console_after(self, task: TaskId, timestamp_ms: int) -> list[dict[str, Any]]:
        """Log events later than ``timestamp_ms``, oldest first, as the server has them; at most a page of them."""
        return sorted(self._page(task, timestamp_ms), key=lambda event: whole(event.get("timestamp")))

    def _page(self, task: TaskId, after_ms: int, budget: Budget | None = None) -> list[dict[str, Any]]:
        query: dict[str, Any] = {"task": task, "batch_size": _PAGE, "order": "asc", "navigate_earlier": False}
        if after_ms:
            query["from_timestamp"] = after_ms
        answer = self._session.call("events.get_task_log", query, budget=budget)
        return [event for event in rows(answer, "events", optional=True) if whole(event.get("timestamp")) > after_ms]
