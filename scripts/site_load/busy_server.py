"""Running tasks at a server with one processor that answers one request after the other: how long they wait."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.executor.stop_conditions import StopRequest
from hpc_agent.executor.watch import STATUS_INTERVAL_S, Meters, Watch, WatchedRun
from site_load.counting_server import CountedClient, CountingServer
from site_load.executors import EXECUTORS, NoUsage
from site_load.timeline import ProgramClock, Timeline

_SETTLE_S, _WATCHED_S = 120.0, 60.0
_QUEUE, _WORKER = QueueId("q" * 32), WorkerId("n1")


@dataclass(frozen=True)
class Waiting:
    """Of ``running`` tasks. An answer that takes long is one to a queue call too."""

    running: int
    requests_a_second: float
    answer_s: float
    """The median."""
    look_s: float
    """Between two looks of a task at its status, the median: an abort is noticed within this and an answer."""


class _BusyServer(CountingServer):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._busy_until = 0.0

    def answer_at(self, now: float) -> float:
        """When a request that comes now is answered."""
        self._busy_until = max(self._busy_until, now) + self._seconds
        return self._busy_until


class _Client(CountedClient):
    def __init__(self, server: _BusyServer, clock: ProgramClock) -> None:
        super().__init__(server, EXECUTORS, clock)
        asked = self.session.call

        def call(*arguments: Any, **options: Any) -> dict[str, Any]:
            now = clock.monotonic()
            clock.sleep(server.answer_at(now) - now)
            return asked(*arguments, **options)

        self.session.call = call  # type: ignore[method-assign]


def waiting(running: int, seconds: float, *, paced: bool) -> Waiting:
    """``seconds``: processor time of the server for each request. Without ``paced`` tasks look at fixed intervals."""
    timeline, server = Timeline(), _BusyServer(seconds)
    server.add_queue(_QUEUE, {})
    answers: list[float] = []
    pauses: list[float] = []

    def start(number: int) -> Callable[[], None]:
        task, clock = TaskId(f"{number:032x}"), ProgramClock(timeline)
        server.start(task, _QUEUE, "token", _WORKER)
        watching = Watch(
            _Client(server, clock),
            WatchedRun(task, _WORKER, "token"),
            StopRequest(),
            clock,
            ping_interval=60,
            callback_limit=0,
            meters=Meters(NoUsage(clock)),
        )

        def look() -> None:
            clock.ahead = 0.0
            pause = watching.look() if paced else (watching.look() and STATUS_INTERVAL_S)
            answered = clock.ahead
            clock.ahead = 0.0
            if timeline.seconds > _SETTLE_S:
                answers.append(answered)
                pauses.append(pause)
            timeline.after(answered + pause, look)

        return look

    for number in range(running):
        timeline.after(STATUS_INTERVAL_S * number / running, start(number))
    timeline.run_until(_SETTLE_S + _WATCHED_S)
    between = statistics.median(answers) + statistics.median(pauses)
    return Waiting(running, len(answers) / _WATCHED_S, statistics.median(answers), between)


def table(counts: tuple[int, ...], seconds: float) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """For each number of tasks, paced and not."""
    return {
        str(running): {
            name: {
                "requests a second": round(found.requests_a_second, 1),
                "answer after s": round(found.answer_s, 3),
                "look every s": round(found.look_s, 2),
            }
            for name, found in (
                ("paced", waiting(running, seconds, paced=True)),
                ("at fixed intervals", waiting(running, seconds, paced=False)),
            )
        }
        for running in counts
    }
