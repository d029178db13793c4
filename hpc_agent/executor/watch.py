"""While a task runs: is it to end, is it still ours, is it alive, what does it use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.executor.stop import StopReason, StopRequest
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE
from hpc_agent.telemetry.usage import UsageReader
from hpc_agent.wire.task_state import TaskState

log = EventLog("watch")

STATUS_INTERVAL_S = 1.5
MEMORY_INTERVAL_S = 5.0
USAGE_INTERVAL_S = 30.0

_GOES_ON = frozenset({TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED, TaskStatus.UNKNOWN})
"""A script may complete its own task; a word that we do not know is no order to stop."""


@dataclass(frozen=True)
class WatchResult:
    """Whose run it is. ``still_ours`` looks at the run directory: a later start of the job, or the daemon, may have
    taken the task."""

    task: TaskId
    worker: WorkerId
    stamp: str = ""
    """What the server shows while the run is ours; empty where it is not shown."""
    queues: Sequence[QueueId] = ()
    still_ours: Callable[[], bool] = lambda: True
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Meters:
    usage: UsageReader
    memory: Callable[[], None] = lambda: None
    """Looks at the memory in use."""


class Watch:
    """Threads of its own. ``wake`` is called when the task has to end."""

    def __init__(
        self,
        client: Client,
        run: WatchResult,
        stop: StopRequest,
        clock: Clock,
        *,
        ping_interval: float,
        callback_limit: float,
        meters: Meters,
        wake: Callable[[], None],
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """``callback_limit``: the most seconds that a task's own abort callback gets."""
        self._client = client
        self._run = run
        self._stop = stop
        self._clock = clock
        self._ping_interval = ping_interval
        self._callback_limit = callback_limit
        self._meters = meters
        self._wake = wake
        self._say = say
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, name="watch", daemon=True),
            # A server that does not answer holds up the other one for a minute, and a later start waits for less.
            threading.Thread(target=self._look_at_claim, name="fence", daemon=True),
            # It writes to the shared file system, which may stall: an abort is heard all the same.
            threading.Thread(target=self._look_at_memory, name="memory", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        self._done.set()
        # Not the others: they may wait for a file server, and have no more to say.
        if self._threads[0].is_alive():
            self._threads[0].join(timeout=5)

    def _look_at_claim(self) -> None:
        while not self._clock.wait(self._done, STATUS_INTERVAL_S):
            if not self._run.still_ours():
                self._end(StopReason.FENCED, "the run directory")
                return

    def _look_at_memory(self) -> None:
        while not self._clock.wait(self._done, MEMORY_INTERVAL_S):
            self._quietly(self._meters.memory)

    def _loop(self) -> None:
        begun = self._clock.monotonic()
        # The first sign of life and the first figures come soon, for short tasks too.
        turns = {
            self._ping: [self._ping_interval, begun - self._ping_interval + 3],
            self._report: [USAGE_INTERVAL_S, begun - USAGE_INTERVAL_S + 3],
        }
        while not self._clock.wait(self._done, STATUS_INTERVAL_S):
            self._quietly(self._look)
            for action, turn in turns.items():
                interval, last = turn
                if (now := self._clock.monotonic()) - last >= interval:
                    turn[1] = now
                    self._quietly(action)

    def _quietly(self, call: Callable[[], None]) -> None:
        """No answer, or an odd one, is no order to stop: the next turn asks again."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - this thread is all that hears an abort
            log.warning("no answer", task=self._run.task, error=error)

    def _look(self) -> None:
        if self._stop.why is not None and self._stop.why is not StopReason.ABORT:
            return
        run = self._run
        seen = self._client.tasks.get_states([run.task], budget=ONCE).get(run.task)
        if seen is None:
            self._end(StopReason.TAKEN_BACK, "it was deleted")
        elif run.stamp and seen.run_token not in ("", run.stamp):
            self._end(StopReason.FENCED, f"run {seen.run_token} on the server")
        elif run.stamp and not seen.run_token and seen.last_worker not in ("", run.worker):
            # A reset takes the stamp away, and agents of other kinds set none.
            self._end(StopReason.FENCED, f"worker {seen.last_worker} on the server")
        elif seen.abort_requested:
            self._abort(seen)
        elif seen.status is TaskStatus.STOPPED:
            # tasks.stop on a task whose worker the server thinks dead stops it at once.
            self._end(StopReason.ABORT, seen.reason)
        elif seen.status not in _GOES_ON:
            self._end(StopReason.TAKEN_BACK, f"its status is {seen.status.value}")

    def _abort(self, seen: TaskState) -> None:
        """The task may have an abort callback of its own: it is given the time that it asked for.

        See docs/internals/clearml-protocol.md#abort-callback.
        """
        seconds = min(seen.abort_callback_seconds, self._callback_limit)
        if self._stop.why is StopReason.ABORT:
            if seen.abort_callback_done:
                self._stop.go()
            return
        if seconds <= 0:
            self._end(StopReason.ABORT, seen.message)
            return
        self._stop.ask(StopReason.ABORT, hold_until=self._clock.monotonic() + seconds)
        self._say(f"Aborted by its user; its abort callback has {seconds:g} s")

    def _end(self, why: StopReason, words: str) -> None:
        if self._done.is_set():
            return
        log.info("stopping", task=self._run.task, why=why.value, said=words)
        self._stop.ask(why)
        self._wake()

    def _ping(self) -> None:
        self._client.tasks.ping(self._run.task, budget=ONCE)

    def _report(self) -> None:
        run = self._run
        self._client.workers.report(
            run.worker, queues=run.queues, task=run.task, stats=self._meters.usage.read(), tags=run.tags
        )
