"""Watch over a running task: stop requests of its user, ownership of the run, pings, and usage reports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.executor.stop_conditions import StopReason, StopRequest
from hpc_agent.logs import EventLog
from hpc_agent.retry import ONCE
from hpc_agent.telemetry.usage import UsageReader
from hpc_agent.wire.task_state import TaskState

log = EventLog("watch")

STATUS_INTERVAL_S, LONGEST_STATUS_INTERVAL_S = 1.5, 30.0
_STATUS_PAUSE = 10.0
"""Times what the last answer took: thousands of tasks that look at a server with too much to do would otherwise keep
all other requests waiting, and see an abort no sooner (docs/how-far.md)."""
CLAIM_INTERVAL_S = 2.5
"""Each look is two operations on the shared file system."""
MEMORY_INTERVAL_S = 5.0
USAGE_INTERVAL_S = 30.0

_GOES_ON = frozenset({TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED, TaskStatus.UNKNOWN})
"""A script may complete its own task; an unknown status is not a request to stop."""


def status_interval(answered_in: float) -> float:
    """Seconds between two looks at a task's status, where the last answer took so many."""
    return min(max(STATUS_INTERVAL_S, _STATUS_PAUSE * answered_in), LONGEST_STATUS_INTERVAL_S)


class WatchedRun(msgspec.Struct, frozen=True):
    """Run that is watched. ``still_ours`` looks at the run directory: a later start of the job, or the daemon, may have
    taken the task."""

    task: TaskId
    worker: WorkerId
    token: str = ""
    """Run token that the server shows while the run is ours; empty where it is not shown."""
    queues: Sequence[QueueId] = ()
    still_ours: Callable[[], bool] = lambda: True
    tags: Sequence[str] = ()


class Meters(msgspec.Struct, frozen=True):
    usage: UsageReader
    memory: Callable[[], None] = lambda: None
    """Looks at the memory in use."""


class Watch:
    """Watch in threads of its own, from ``start`` to ``finish``; asks ``stop`` to end the run."""

    def __init__(
        self,
        client: Client,
        run: WatchedRun,
        stop: StopRequest,
        clock: Clock,
        *,
        ping_interval: float,
        callback_limit: float,
        meters: Meters,
        write_line: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """``callback_limit``: the most seconds that a task's own abort callback gets."""
        self._client = client
        self._run = run
        self._stop = stop
        self._clock = clock
        self._ping_interval = ping_interval
        self._callback_limit = callback_limit
        self._meters = meters
        self._write_line = write_line
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, name="watch", daemon=True),
            # A server that does not answer holds up the first one for a minute, and a later start waits for less.
            threading.Thread(target=self._watch_claim, name="fence", daemon=True),
            # It writes to the shared file system, which may stall; an abort is noticed anyway.
            threading.Thread(target=self._watch_memory, name="memory", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        self._done.set()
        # Not the others: they may wait for a file server, and have no more to say.
        if self._threads[0].is_alive():
            self._threads[0].join(timeout=5)

    def _watch_claim(self) -> None:
        while not self._clock.wait(self._done, CLAIM_INTERVAL_S):
            if not self._run.still_ours():
                self._end(StopReason.FENCED, "the run directory")
                return

    def _watch_memory(self) -> None:
        while not self._clock.wait(self._done, MEMORY_INTERVAL_S):
            self._try(self._meters.memory)

    def _loop(self) -> None:
        start = self._clock.monotonic()
        # The first sign of life and the first figures come soon, for short tasks too.
        turns = {
            self._ping: [self._ping_interval, start - self._ping_interval + 3],
            self._report: [USAGE_INTERVAL_S, start - USAGE_INTERVAL_S + 3],
        }
        pause = STATUS_INTERVAL_S
        while not self._clock.wait(self._done, pause):
            pause = self.look()
            for action, turn in turns.items():
                interval, last = turn
                if (now := self._clock.monotonic()) - last >= interval:
                    turn[1] = now
                    self._try(action)

    def look(self) -> float:
        """Look at the task's status once; seconds until the next look."""
        began = self._clock.monotonic()
        self._try(self._check_status)
        return status_interval(self._clock.monotonic() - began)

    def _try(self, call: Callable[[], None]) -> None:
        """No answer, or an odd one, is not a request to stop: the next turn asks again."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - this thread alone notices an abort
            log.warning("watch.failed", task=self._run.task, error=error)

    def _check_status(self) -> None:
        if self._stop.reason is not None and self._stop.reason is not StopReason.ABORT:
            return
        run = self._run
        state = self._client.tasks.get_states([run.task], budget=ONCE).get(run.task)
        if state is None:
            self._end(StopReason.TAKEN_BACK, "the task was deleted")
        elif run.token and state.run_token not in ("", run.token):
            self._end(StopReason.FENCED, f"run {state.run_token} on the server")
        elif run.token and not state.run_token and state.last_worker not in ("", run.worker):
            # A reset takes the stamp away, and agents of other kinds set none.
            self._end(StopReason.FENCED, f"worker {state.last_worker} on the server")
        elif state.abort_requested:
            self._abort(state)
        elif state.status is TaskStatus.STOPPED:
            # tasks.stop on a task whose worker the server thinks dead stops it at once.
            self._end(StopReason.ABORT, state.reason)
        elif state.status not in _GOES_ON:
            self._end(StopReason.TAKEN_BACK, f"status {state.status.value}")

    def _abort(self, state: TaskState) -> None:
        """The task may have an abort callback of its own: it is given the time that it asked for.

        See docs/internals/clearml-protocol.md#abort-callback.
        """
        seconds = min(state.abort_callback_seconds, self._callback_limit)
        if self._stop.reason is StopReason.ABORT:
            if state.abort_callback_done:
                self._stop.release_hold()
            return
        if seconds <= 0:
            self._end(StopReason.ABORT, state.message)
            return
        self._stop.request(StopReason.ABORT, hold_until=self._clock.monotonic() + seconds)
        self._write_line(f"Aborted by its user; its abort callback has {seconds:g} s")

    def _end(self, reason: StopReason, detail: str) -> None:
        if self._done.is_set():
            return
        log.info("task.stopping", task=self._run.task, reason=reason.value, detail=detail)
        self._stop.request(reason)

    def _ping(self) -> None:
        self._client.tasks.ping(self._run.task, budget=ONCE)

    def _report(self) -> None:
        run = self._run
        self._client.workers.report(
            run.worker, queues=run.queues, task=run.task, stats=self._meters.usage.read(), tags=run.tags
        )
