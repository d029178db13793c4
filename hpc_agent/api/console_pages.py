"""A task's console from the server, page by page: each event once, also where several have one time stamp."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpc_agent.api.answer import whole
from hpc_agent.api.events import EventsApi
from hpc_agent.domain.ids import TaskId


class ConsolePages:
    """Reader of one console, from its beginning or from where ``skip_to`` sets it."""

    def __init__(self, events: EventsApi, task: TaskId) -> None:
        self._events = events
        self._task = task
        self._after_ms = 0
        self._read: list[dict[str, Any]] = []
        """Events at the last time stamp: others may come with the same."""

    def skip_to(self, last_ms: int) -> None:
        """What is later than this time stamp comes next."""
        self._after_ms, self._read = last_ms + 1, []

    def rest(self) -> Iterator[str]:
        """All that the server has and that was not read yet, a page at a time.

        Raises:
            NotFoundError: there is no such task.
            ServerUnreachableError: no answer; what was read before counts as read.
        """
        while True:
            page = self._events.console_after(self._task, max(self._after_ms - 1, 0))
            events = [event for event in page if event not in self._read]
            if not events:
                return
            last = whole(events[-1].get("timestamp"))
            self._read = [event for event in page if whole(event.get("timestamp")) == last]
            self._after_ms = last
            yield "".join(str(event.get("msg") or "") for event in events)
