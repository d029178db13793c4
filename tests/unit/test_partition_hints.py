"""When the daemon asks about other partitions, and what it says then."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from manual_clock import ManualClock

from hpc_agent.config.resource_settings import OverrideSettings, QueueSettings
from hpc_agent.config.settings import HpcSettings
from hpc_agent.daemon.partition_hints import EVERY_S, PartitionHints
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, JobId, TaskId
from hpc_agent.domain.job import JobState, LiveJob
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.inspector import JobInspector, SubmitTest

ATTEMPT = Attempt(TaskId("a" * 32), AttemptId("12345678"))
DIRECTORY = RunDirectory(Path("/runs"))


class Answers(JobInspector):
    """Scheduler that answers ``sbatch --test-only`` from a table; None: it gives no answer."""

    def __init__(self, **starts: datetime | None) -> None:
        self.starts = starts
        self.asked: list[str] = []

    def test(self, script: Path, workdir: Path, *, partition: str = "") -> SubmitTest:
        assert script == DIRECTORY.script
        self.asked.append(partition)
        start = self.starts[partition]
        if start is None:
            raise SchedulerUnavailableError("no answer")
        return SubmitTest(True, "to start", start, partition=partition)


def queues(*partitions: str) -> HpcSettings:
    overrides = {"partition": OverrideSettings(choices=partitions)} if partitions else None
    return HpcSettings(queues={"gpu": QueueSettings(overrides=overrides)})


class Bench:
    def __init__(self, inspector: Answers, *partitions: str) -> None:
        self.clock = ManualClock()
        self.inspector = inspector
        self.hints = PartitionHints(lambda: inspector, queues(*partitions), self.clock)

    def a_pass(self, hours: float | None) -> str:
        start = None if hours is None else self.clock.start + timedelta(hours=hours)
        job = LiveJob(JobId("7"), "j", JobState.PENDING, "PENDING", "Priority", start)
        self.hints.begin_pass()
        return self.hints.hint(ATTEMPT, "gpu", job, DIRECTORY)


def after(hours: float) -> datetime:
    return ManualClock().start + timedelta(hours=hours)


def test_the_soonest_partition_is_named_once_all_were_asked_one_a_pass() -> None:
    bench = Bench(Answers(main=after(6), long=after(3), short=after(1)), "main", "long", "short")
    assert bench.a_pass(6) == ""
    assert "sooner on partition long (2026-01-01 03:00 UTC)" in bench.a_pass(6)
    assert bench.a_pass(6) == (
        "; it would start sooner on partition short (2026-01-01 01:00 UTC): "
        "set the user property partition and enqueue it again"
    )
    bench.a_pass(6)
    assert bench.inspector.asked == ["main", "long", "short"]


def test_a_partition_with_room_now_is_named_until_it_is_asked_again() -> None:
    bench = Bench(Answers(main=after(6), short=after(0)), "main", "short")
    assert bench.a_pass(6) == ""
    for _ in range(3):
        assert "sooner on partition short (at once): " in bench.a_pass(6)
        bench.clock.advance(EVERY_S / 4)
    bench.clock.advance(EVERY_S / 4)
    bench.inspector.starts["short"] = after(5)
    assert "sooner on partition short (at once): " in bench.a_pass(6)
    assert "sooner on partition short (2026-01-01 05:00 UTC): " in bench.a_pass(6)
    assert bench.inspector.asked == ["main", "short", "main", "short"]


def test_it_is_asked_again_after_ten_minutes() -> None:
    bench = Bench(Answers(main=after(6), short=after(1)), "main", "short")
    for _ in range(5):
        bench.a_pass(6)
    assert len(bench.inspector.asked) == 2
    bench.clock.advance(EVERY_S)
    bench.inspector.starts["short"] = after(7)
    bench.a_pass(6)
    assert bench.a_pass(6) == "" and len(bench.inspector.asked) == 4


@pytest.mark.parametrize(
    ("partitions", "hours"),
    [((), 6.0), (("main",), 6.0), (("main", "short"), None), (("main", "short"), 0.1)],
    ids=["tasks may not choose", "one partition", "no expected start", "it starts soon anyway"],
)
def test_nothing_is_asked_where_nothing_can_be_gained(partitions: tuple[str, ...], hours: float | None) -> None:
    bench = Bench(Answers(main=after(1), short=after(1)), *partitions)
    assert bench.a_pass(hours) == "" and bench.inspector.asked == []


def test_a_scheduler_without_an_answer_and_a_small_gain_give_no_hint() -> None:
    bench = Bench(Answers(main=None, short=after(5.9)), "main", "short")
    assert [bench.a_pass(6), bench.a_pass(6)] == ["", ""]
