"""Head starts of other clusters: how long a task is left to them, and how often the scheduler is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from manual_clock import ManualClock

from hpc_agent.config.resource_settings import QueueSettings
from hpc_agent.config.settings import HpcSettings
from hpc_agent.daemon.head_starts import ANSWER_HOLDS_S, HeadStarts, LeftToOthers
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import AttemptId, TaskId
from hpc_agent.domain.resources import Resources
from hpc_agent.errors import InputError, ResourceError, SchedulerUnavailableError
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.inspector import JobInspector, SubmitTest

ANY = Resources()


@dataclass
class Scheduler:
    """Expects that each job would start after ``wait`` seconds; None: it cannot tell."""

    clock: ManualClock
    wait: float | None = 3600.0
    accepted: bool = True
    error: Exception | None = None
    asked: int = 0

    def test(self, _script: Path, _workdir: Path, *, partition: str = "") -> SubmitTest:
        self.asked += 1
        if self.error:
            raise self.error
        start = None if self.wait is None else self.clock.now() + timedelta(seconds=self.wait)
        return SubmitTest(self.accepted, "as the scheduler puts it", start)


@dataclass
class Site:
    """A queue with a head start of two minutes, and tasks 1, 2, … that wait in it."""

    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.clock)
        queues = {"shared": QueueSettings(shared=True, head_start=120)}
        self.head_starts = HeadStarts(
            lambda: cast(JobInspector, self.scheduler), HpcSettings(queues=queues), self.clock
        )

    def run_pass(self, numbers: Sequence[int] = (1,), resources: Resources = ANY) -> list[LeftToOthers | None]:
        attempts = [Attempt(TaskId(f"{number:032}"), AttemptId("a")) for number in numbers]
        self.head_starts.begin_pass(attempts)
        directory = RunDirectory(Path("/runs"))
        return [self.head_starts.left_to_others(attempt, "shared", resources, directory) for attempt in attempts]


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_task_that_would_wait_is_left_to_others_for_the_head_start(site: Site) -> None:
    [left] = site.run_pass()
    assert left is not None and left.message.startswith("left to other clusters of its queue for 120 s: here it would")
    site.clock.advance(119)
    assert site.run_pass() != [None]
    site.clock.advance(1)
    assert site.run_pass() == [None]


def test_a_task_that_would_start_at_once_is_submitted_at_once(site: Site) -> None:
    site.scheduler.wait = 5
    assert site.run_pass() == [None]


def test_a_task_is_left_for_no_longer_than_it_would_wait(site: Site) -> None:
    site.scheduler.wait = 40
    [left] = site.run_pass()
    assert left is not None and " for 40 s: " in left.message
    site.clock.advance(31)
    assert site.run_pass() == [None]


def test_room_that_is_found_later_ends_the_wait(site: Site) -> None:
    assert site.run_pass() != [None]
    site.scheduler.wait = 0
    site.clock.advance(ANSWER_HOLDS_S)
    assert site.run_pass() == [None]


@pytest.mark.parametrize(
    "trouble",
    [
        {"wait": None},
        {"accepted": False},
        {"error": SchedulerUnavailableError("no answer")},
        {"error": InputError("it cannot be asked")},
    ],
)
def test_where_the_scheduler_cannot_tell_the_task_is_submitted(site: Site, trouble: dict[str, object]) -> None:
    for name, value in trouble.items():
        setattr(site.scheduler, name, value)
    assert site.run_pass() == [None]


def test_tasks_that_ask_for_the_same_share_an_answer(site: Site) -> None:
    assert None not in site.run_pass(range(50))
    assert site.scheduler.asked == 1


def test_one_question_is_put_in_a_pass(site: Site) -> None:
    site.run_pass([1], Resources(gpus=1))
    assert site.scheduler.asked == 1
    site.head_starts.begin_pass(())
    directory = RunDirectory(Path("/runs"))
    for gpus in (2, 3):
        attempt = Attempt(TaskId(f"{gpus:032}"), AttemptId("a"))
        left = site.head_starts.left_to_others(attempt, "shared", Resources(gpus=gpus), directory)
        assert left is not None
    assert site.scheduler.asked == 2


def test_a_task_that_comes_back_to_the_queue_is_left_to_others_again(site: Site) -> None:
    site.run_pass([1])
    site.clock.advance(100)
    # It started elsewhere.
    site.run_pass([2])
    [left] = site.run_pass([1])
    assert left is not None and " for 120 s: " in left.message


def test_a_head_start_wants_a_shared_queue() -> None:
    with pytest.raises(ResourceError, match="set shared to true too"):
        QueueSettings(head_start=60)
