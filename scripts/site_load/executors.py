"""Executors of a simulated site: what each asks the server for while its task runs, at the times at which it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.executor import watch
from hpc_agent.executor.stop_conditions import StopRequest
from hpc_agent.executor.watch import Meters, Watch, WatchedRun
from hpc_agent.retry import ONCE
from hpc_agent.telemetry.usage import GpuReader, UsageReader
from hpc_agent.wire.event import log_event
from site_load.counting_server import CountedClient, CountingServer
from site_load.timeline import ProgramClock, Timeline

EXECUTORS = "executors"
"""Their name in counts."""


@dataclass(frozen=True)
class Work:
    """What each task is like."""

    seconds: float
    line_every: float
    """Seconds between two lines of its console."""
    ping_every: float
    around: Mapping[str, int]
    """Requests, by endpoint, that a job makes before its task's process starts and after it has ended."""


class NoUsage(UsageReader):
    """A reading that costs this machine nothing."""

    def __init__(self, clock: ProgramClock) -> None:
        super().__init__(clock, GpuReader(()))

    def read(self) -> dict[str, Any]:
        return {"cpu_usage": [50.0], "memory_used": 1000.0, "memory_free": 1000.0}


class Executors:
    """All running tasks of the site."""

    def __init__(self, timeline: Timeline, server: CountingServer, work: Work) -> None:
        self._timeline = timeline
        self._server = server
        self._work = work
        self._clock = ProgramClock(timeline)
        self._client = CountedClient(server, EXECUTORS, self._clock)
        self._usage = NoUsage(self._clock)
        self.running = 0

    def run(self, attempt: Attempt, queue: QueueId, worker: WorkerId, left: float, ended: Callable[[], None]) -> None:
        """Run a task for ``left`` seconds more, and then call ``ended``. One that starts now has all its time left."""
        work = self._work
        if left >= work.seconds:
            self._server.count(EXECUTORS, work.around)
        stop = StopRequest()
        run = WatchedRun(attempt.task, worker, f"{attempt.id}.0", (queue,))
        watching = Watch(
            self._client,
            run,
            stop,
            self._clock,
            ping_interval=work.ping_every,
            callback_limit=0,
            meters=Meters(self._usage),
        )
        until = self._timeline.seconds + left
        self.running += 1

        def line() -> None:
            now = int(self._clock.now().timestamp() * 1000)
            self._client.events.add([log_event(attempt.task, worker, "epoch 12 loss 0.123", now)], budget=ONCE)

        def over() -> None:
            assert stop.reason is None, f"{attempt.task} was stopped: {stop.reason}"
            self.running -= 1
            ended()

        phase = left % watch.STATUS_INTERVAL_S
        self._repeat(watching.look, phase, watch.STATUS_INTERVAL_S, until)
        self._repeat(watching._ping, left % work.ping_every, work.ping_every, until)
        self._repeat(watching._report, left % watch.USAGE_INTERVAL_S, watch.USAGE_INTERVAL_S, until)
        self._repeat(line, left % work.line_every, work.line_every, until)
        self._timeline.after(left, over)

    def _repeat(self, action: Callable[[], object], first: float, every: float, until: float) -> None:
        def turn() -> None:
            if self._timeline.seconds < until:
                action()
                self._timeline.after(every, turn)

        self._timeline.after(first, turn)
