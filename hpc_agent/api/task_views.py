"""Views of tasks for a person at a terminal: summaries for a table, the end of a console, the request to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpc_agent.api.answer import rows, whole
from hpc_agent.api.client import Client
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.queue import Queue
from hpc_agent.wire.queue_fields import queue_from_wire
from hpc_agent.wire.task_requests import PAGE_SIZE
from hpc_agent.wire.task_summary import TaskSummary, summary_from_wire, summary_query

_CONSOLE_PAGE = 100
"""Log events in the answer about a console's end; each holds many lines."""


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

    def console_end(self, task: TaskId) -> str:
        """The last lines of a task's console: at least those of its last 100 log events."""
        query: dict[str, Any] = {
            "task": task,
            "batch_size": _CONSOLE_PAGE,
            "order": "desc",
            "navigate_earlier": True,
        }
        events = rows(self._session.call("events.get_task_log", query), "events", optional=True)
        ordered = sorted(events, key=lambda event: whole(event.get("timestamp")))
        return "".join(str(event.get("msg") or "") for event in ordered)

    def request_stop(self, task: TaskId, reason: str) -> None:
        """As the web page's Abort: a running task is asked to stop, a queued one leaves its queue and is stopped."""
        self._session.call("tasks.stop", {"task": task, "status_reason": reason})
