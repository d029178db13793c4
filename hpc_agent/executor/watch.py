"""While a task runs: is it to end, is it alive, what does it use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.executor.stop import StopRequest, Why
from hpc_agent.logs import Events
from hpc_agent.retry import ONCE
from hpc_agent.telemetry.usage import UsageReader

log = Events("watch")

STATUS_INTERVAL_S = 1.5
USAGE_INTERVAL_S = 30.0

_GOES_ON = frozenset({TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED, TaskStatus.UNKNOWN})
"""A script may complete its own task; a word that we do not know is no order to stop."""


class Watch:
    """A thread of its own. ``wake`` is called once when the task has to end."""

    def __init__(
        self,
        client: Client,
        task: TaskId,
        worker: WorkerId,
        queues: Sequence[QueueId],
        stop: StopRequest,
        clock: Clock,
        *,
        ping_interval: float,
        usage: UsageReader,
        wake: Callable[[], None],
        tags: Sequence[str] = (),
    ) -> None:
        self._client = client
        self._task = task
        self._worker = worker
        self._queues = queues
        self._stop = stop
        self._clock = clock
        self._ping_interval = ping_interval
        self._usage = usage
        self._wake = wake
        self._tags = tags
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        pinged = reported = self._clock.monotonic() - USAGE_INTERVAL_S + 3
        while not self._clock.wait(self._done, STATUS_INTERVAL_S):
            now = self._clock.monotonic()
            if self._stop.why is None:
                self._quietly(self._look)
            if now - pinged >= self._ping_interval:
                pinged = now
                self._quietly(lambda: self._client.tasks.ping(self._task, budget=ONCE))
            if now - reported >= USAGE_INTERVAL_S:
                reported = now
                self._quietly(self._report)

    def _quietly(self, call: Callable[[], None]) -> None:
        """No answer, or an odd one, is no order to stop: the next turn asks again."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - this thread is all that hears an abort
            log.warning("no answer", task=self._task, error=error)

    def _look(self) -> None:
        seen = self._client.tasks.glimpse([self._task], budget=ONCE).get(self._task)
        if seen is None:
            self._end(Why.TAKEN_BACK, "it was deleted")
        elif seen.abort_requested:
            self._end(Why.ABORT, seen.message)
        elif seen.status is TaskStatus.STOPPED:
            # tasks.stop on a task whose worker the server thinks dead stops it at once.
            self._end(Why.ABORT, seen.reason)
        elif seen.status not in _GOES_ON:
            self._end(Why.TAKEN_BACK, f"its status is {seen.status.value}")

    def _end(self, why: Why, words: str) -> None:
        if self._done.is_set():
            return
        log.info("stopping", task=self._task, why=why.value, said=words)
        self._stop.ask(why)
        self._wake()

    def _report(self) -> None:
        self._client.workers.report(
            self._worker, queues=self._queues, task=self._task, stats=self._usage.read(), tags=self._tags
        )
