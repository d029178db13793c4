"""Reader of a task's console: what the server has of it, page by page, until the task has ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hpc_agent.api.client import Client
from hpc_agent.api.console_pages import ConsolePages
from hpc_agent.api.task_views import TaskViews
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import ServerUnreachableError

POLL_S = 1.0
_REST_S = 5.0
"""How long the rest of a console may take after the task's final status."""


@dataclass(frozen=True)
class ConsoleText:
    """A piece of the console, to be printed as it is."""

    text: str


@dataclass(frozen=True)
class ConsoleNote:
    """What is to be known about the task meanwhile: why it waits, that the server is away, how it ended."""

    text: str


class ConsoleReader:
    def __init__(self, client: Client, views: TaskViews, task: TaskId, clock: Clock) -> None:
        self._client = client
        self._views = views
        self._task = task
        self._clock = clock
        self._pages = ConsolePages(client.events, task)

    def skip_to_last(self, lines: int) -> str:
        """The last so many lines; what comes next is what was printed after them."""
        end = self._views.console_end(self._task)
        kept = end.text.splitlines(keepends=True)
        if len(kept) <= lines and end.is_cut:
            kept = "".join(self.rest()).splitlines(keepends=True)
        else:
            self._pages.skip_to(end.last_ms)
        return "".join(kept[-lines:]) if lines else ""

    def rest(self) -> Iterator[str]:
        """As ``ConsolePages.rest``."""
        return self._pages.rest()

    def follow(self) -> Iterator[ConsoleText | ConsoleNote]:
        """Until the task has a final status and its console has come; a server that is away is waited for.

        Raises:
            NotFoundError: there is no such task.
        """
        noted = ""
        ended_at: float | None = None
        while True:
            read, note, final = False, noted, False
            try:
                for text in self.rest():
                    read = True
                    yield ConsoleText(text)
                final, note = self._state()
            except ServerUnreachableError as error:
                note = f"The server does not answer, trying again: {error}"
            now = self._clock.monotonic()
            if final and ended_at is None:
                ended_at = now
            over = ended_at is not None and not read and final and now - ended_at >= _REST_S
            if note != noted and note and (over or not final):
                noted = note
                yield ConsoleNote(note)
            if over:
                return
            self._clock.sleep(POLL_S)

    def _state(self) -> tuple[bool, str]:
        """Whether the task has ended, and what is to be known of it; empty while it simply runs."""
        state = self._client.tasks.get_states([self._task]).get(self._task)
        if state is None:
            return True, "The task was deleted"
        if state.status.is_final:
            return True, f"The task is {state.status.value}" + (f": {state.reason}" if state.reason else "")
        if state.status is TaskStatus.CREATED:
            return False, "The task is a draft: it starts when it is enqueued"
        if state.status is TaskStatus.IN_PROGRESS and not state.message.startswith("requeued"):
            return False, ""
        return False, state.message or f"The task is {state.status.value}"
