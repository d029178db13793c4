"""Views of tasks for a person at a terminal: summaries for a table, the end of a console, the request to stop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from hpc_agent.api.answer import id_in, rows, whole
from hpc_agent.api.client import Client
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.queue import Queue
from hpc_agent.wire.queue_fields import queue_from_wire
from hpc_agent.wire.task_requests import PAGE_SIZE, stop_request
from hpc_agent.wire.task_state import JOB_ID
from hpc_agent.wire.task_summary import TaskSummary, summary_from_wire, summary_query

_CONSOLE_PAGE = 100
"""Log events in the answer about a console's end; each holds many lines."""


class ConsoleEnd(msgspec.Struct, frozen=True):
    """``last_ms``: timestamp of its last event. ``is_cut``: there may be more before it."""

    text: str
    last_ms: int
    is_cut: bool


class TaskViews:
    """Methods raise ``ApiError`` for a refusal and ``ServerUnreachableError`` without an answer."""

    def __init__(self, client: Client) -> None:
        self._session = client.session

    def summaries(self, tasks: Sequence[TaskId]) -> dict[TaskId, TaskSummary]:
        """500 tasks a request; those that the server does not have are left out."""
        found: dict[TaskId, TaskSummary] = {}
        for start in range(0, len(tasks), PAGE_SIZE):
            query = summary_query(tasks[start : start + PAGE_SIZE])
            listed = rows(self._session.call("tasks.get_all", query), "tasks")
            found |= {summary.id: summary for task in listed if (summary := summary_from_wire(task))}
        return found

    def queues(self) -> list[Queue]:
        """All queues of the server with their entries, in one request."""
        listed = rows(self._session.call("queues.get_all", {"search_hidden": True}), "queues")
        return [queue for data in listed if (queue := queue_from_wire(data))]

    def of_job(self, job: str) -> list[TaskId]:
        """Tasks whose job has, or had, this number."""
        pattern = {"fields": [f"runtime.{JOB_ID}"], "pattern": f"^{re.escape(job)}$"}
        query = {"_any_": pattern, "only_fields": ["id"], "search_hidden": True, "page": 0, "page_size": PAGE_SIZE}
        return [TaskId(id_in(task)) for task in rows(self._session.call("tasks.get_all", query), "tasks")]

    def console_end(self, task: TaskId) -> ConsoleEnd:
        """The end of a task's console: its last 100 log events."""
        query: dict[str, Any] = {
            "task": task,
            "batch_size": _CONSOLE_PAGE,
            "order": "desc",
            "navigate_earlier": True,
        }
        events = rows(self._session.call("events.get_task_log", query), "events", optional=True)
        ordered = sorted(events, key=lambda event: whole(event.get("timestamp")))
        text = "".join(str(event.get("msg") or "") for event in ordered)
        last_ms = max((whole(event.get("timestamp")) for event in ordered), default=0)
        return ConsoleEnd(text, last_ms, is_cut=len(events) >= _CONSOLE_PAGE)

    def request_stop(self, task: TaskId, reason: str) -> None:
        """As the web page's Abort: a running task is asked to stop, a queued one leaves its queue and is stopped."""
        self._session.call("tasks.stop", stop_request(task, reason))
