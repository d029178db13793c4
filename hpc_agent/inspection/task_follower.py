"""Follower of a task from any machine: its way, its console, its end. ``hpc-task --follow`` runs it on laptops too."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.api.console_pages import ConsolePages
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import ServerUnreachableError
from hpc_agent.wire.task_state import TaskState

_INTERVAL_S = 2.0
"""Between two looks. A person waits for the lines; each look is two requests to the server."""
_LONGEST_INTERVAL_S = 30.0
"""While the server does not answer."""
_LATE_LOOKS = 10
"""After the final status, at most; a console that still grows then is not the task's any more."""
_EXIT_CODE = re.compile(r"\bexit code (\d{1,3})\b")
_SIGNAL = re.compile(r"\bended by (SIG[A-Z0-9]+)\b")
"""In a status reason, as executors write it (``executor.task_outcome``), clearml-agent's among them."""
_ENDS_WELL = frozenset({TaskStatus.COMPLETED, TaskStatus.PUBLISHED, TaskStatus.PUBLISHING, TaskStatus.CLOSED})


class Step(msgspec.Struct, frozen=True):
    """A step on the task's way, in one sentence."""

    text: str


class Output(msgspec.Struct, frozen=True):
    """Text of the console as it came; it may end within a line."""

    text: str


class End(msgspec.Struct, frozen=True):
    """``exit_code``: of the task's process as far as the server knows it, else 0 for a good end and 1 for any other."""

    text: str
    exit_code: int


class TaskFollower:
    """Follower of one task; ``events`` once.

    ``pages``: where in its console to begin. ``waits_for_drafts``: a draft may be enqueued; else it is an end.
    """

    def __init__(
        self, client: Client, task: TaskId, clock: Clock, pages: ConsolePages, *, waits_for_drafts: bool = False
    ) -> None:
        self._client = client
        self._task = task
        self._clock = clock
        self._pages = pages
        self._waits_for_drafts = waits_for_drafts
        self._shown = ""
        self._silent = False

    def events(self) -> Iterator[Step | Output | End]:
        """What happens, as it happens, until the task's end. Goes on while the server does not answer.

        Raises:
            HpcAgentError: the server refuses to show the task.
        """
        pause = _INTERVAL_S
        while True:
            try:
                state = self._client.tasks.get_states([self._task]).get(self._task)
                is_draft = state is not None and state.status is TaskStatus.CREATED
                end = None if is_draft and self._waits_for_drafts else end_of(state)
                yield from self._steps(None if end else state)
                yield from self._console()
                if end is not None:
                    yield from self._late_console()
                    yield end
                    return
                pause = _INTERVAL_S
            except ServerUnreachableError as error:
                if not self._silent:
                    yield Step(f"the server does not answer, trying again: {error}")
                self._silent = True
                pause = min(2 * pause, _LONGEST_INTERVAL_S)
            self._clock.sleep(pause)

    def _steps(self, state: TaskState | None) -> Iterator[Step]:
        if self._silent:
            self._silent = False
            yield Step("the server answers again")
        text = step_of(state) if state else ""
        if text and text != self._shown:
            self._shown = text
            yield Step(text)

    def _console(self) -> Iterator[Output]:
        yield from map(Output, self._pages.rest())

    def _late_console(self) -> Iterator[Output]:
        """An agent of another kind may send its last lines after the final status."""
        for _ in range(_LATE_LOOKS):
            self._clock.sleep(_INTERVAL_S)
            texts = list(self._console())
            yield from texts
            if not texts:
                return


def step_of(state: TaskState) -> str:
    """The sentence for a state before the end; empty if there is nothing to say."""
    if state.status is TaskStatus.CREATED:
        return "a draft: it starts when it is enqueued"
    if state.status is TaskStatus.QUEUED:
        return f"waiting: {state.message}" if state.message else "waiting"
    if state.status is TaskStatus.IN_PROGRESS:
        if state.abort_requested:
            return "is being aborted"
        return f"running on {state.last_worker}" if state.last_worker else "running"
    return ""


def end_of(state: TaskState | None) -> End | None:
    """The end that a state means; None if the task goes on. A task that is in no queue any more does not."""
    if state is None:
        return End("deleted from the server", 1)
    if state.status is TaskStatus.CREATED:
        return End("reset, or taken off its queue: it is a draft now", 1)
    if not state.status.is_final:
        return None
    reason = f": {state.reason}" if state.reason else ""
    return End(f"{state.status.value}{reason}", exit_code_of(state))


def exit_code_of(state: TaskState) -> int:
    if state.status in _ENDS_WELL:
        return 0
    if match := _EXIT_CODE.search(state.reason):
        return int(match[1]) % 256 or 1
    if (match := _SIGNAL.search(state.reason)) and match[1] in signal.Signals.__members__:
        return 128 + signal.Signals[match[1]]
    return 1
