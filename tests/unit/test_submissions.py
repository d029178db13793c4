"""Many waiting tasks become jobs side by side; limits and silence of the scheduler cost few calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_cluster import SimulatedCluster
from simulated_site import SimulatedSite

from hpc_agent.domain.capacity import Capacity
from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.job import JobState, LimitReached, OutcomeUnknown, SubmitResult
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.schedulers.base import SubmitRequest

AT_ONCE = 4
MEETING = range(10, 10 + AT_ONCE)
"""Calls that wait for one another; so many have been answered before that as many as may be are under way."""


class WideCluster(SimulatedCluster):
    """Takes several submissions at a time."""

    limit = 1000
    frozen = False
    under_way = 0
    have_met = False
    late = 0
    """The call that is answered after another one has met the limit."""
    has_met_limit = False
    turn: threading.Condition
    width: list[int]
    states: list[str]
    """Of the attempt's record on disk, when sbatch is called."""

    def room(self) -> Capacity:
        return Capacity(at_once=AT_ONCE)

    def submit(self, request: SubmitRequest) -> SubmitResult:
        with self.turn:
            self.under_way += 1
            self.width.append(self.under_way)
            record = RunDirectory(request.workdir).submission()
            self.states.append(record.state if record else "none")
            if len(self.width) in MEETING and self.limit >= MEETING.stop:
                self.have_met = self.have_met or self.under_way == AT_ONCE
                self.turn.notify_all()
                self.turn.wait_for(lambda: self.have_met, timeout=30)
            try:
                if self.frozen:
                    return OutcomeUnknown("no answer")
                if len([job for job in self.jobs.values() if job.record is None]) >= self.limit:
                    self.has_met_limit = True
                    self.turn.notify_all()
                    return LimitReached("QOSMaxSubmitJobPerUserLimit")
                answer = super().submit(request)
                if len(self.width) == self.late:
                    self.turn.wait_for(lambda: self.has_met_limit, timeout=30)
                    self.turn.wait(0.2)  # for that answer to be read first
                return answer
            finally:
                self.under_way -= 1


class WideSite(SimulatedSite):
    cluster: WideCluster

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder)
        self.cluster = WideCluster(self.faults, self.clock, lambda: self.server.status)
        self.cluster.turn, self.cluster.width, self.cluster.states = threading.Condition(), [], []
        self.tasks = [self.server.task]
        self.restart_daemon()
        for number in range(1, count):
            task = self.server("tasks.create", name=f"sweep {number}", type="training")["id"]
            self.server("tasks.enqueue", task=task, queue=self.server.queue)
            self.tasks.append(TaskId(task))
        self.enqueue()

    def states(self) -> list[str]:
        """Of all records on disk."""
        directories = [directory for task in self.tasks for directory in self.runs.attempts(task)]
        return [record.state for each in directories if (record := each.submission())]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[WideSite]:
    site = WideSite(tmp_path, 20)
    yield site
    site.close()


def test_all_are_submitted_in_one_pass_with_their_intents_on_disk(site: WideSite) -> None:
    site.run_pass()
    assert len(site.cluster.jobs) == 20
    assert set(site.cluster.states) == {"intended"}
    assert site.states() == ["accepted"] * 20


def test_the_first_goes_alone_and_no_more_than_the_scheduler_takes_follow(site: WideSite) -> None:
    site.run_pass()
    assert site.cluster.width[0] == 1
    assert max(site.cluster.width) == AT_ONCE


def test_tasks_are_read_in_one_request(site: WideSite) -> None:
    site.faults.made.clear()
    site.run_pass()
    assert site.faults.made.count("tasks.get_all") == 1
    assert "tasks.get_by_id" not in site.faults.made


def test_a_task_that_the_list_lacks_is_asked_for(site: WideSite) -> None:
    site.faults.omit_rows = True
    site.run_pass()
    assert len(site.cluster.jobs) == 20


def test_a_scheduler_that_is_frozen_is_called_once(site: WideSite) -> None:
    site.cluster.frozen = True
    site.run_pass()
    assert len(site.cluster.width) == 1


def test_a_limit_is_tried_less_and_less_often(site: WideSite) -> None:
    site.cluster.limit = 0
    for _ in range(100):
        site.run_pass()
        site.clock.advance(9)
    # At 0, 30, 90, 210, 450 s; the next one at 930 s.
    assert len(site.cluster.width) == 5


@pytest.mark.parametrize("late", [0, 3])
def test_an_end_lets_the_next_one_try_at_once(site: WideSite, late: int) -> None:
    site.cluster.limit, site.cluster.late = 3, late
    site.run_pass()
    assert len(site.cluster.jobs) == 3
    site.run_pass()
    calls = len(site.cluster.width)
    site.run_pass()
    assert len(site.cluster.width) == calls, "the limit is known"
    site.cluster.end(next(iter(site.cluster.jobs.values())), JobState.COMPLETED)
    site.run_pass()
    assert len(site.cluster.jobs) == 4


def test_the_end_of_another_job_of_the_user_lets_the_next_one_try_at_once(site: WideSite) -> None:
    site.cluster.limit = 3
    for _ in range(3):
        site.run_pass()
    calls = len(site.cluster.width)
    site.cluster.other_jobs, site.cluster.limit = site.cluster.other_jobs[1:], 4
    site.run_pass()
    assert len(site.cluster.width) > calls
    assert len(site.cluster.jobs) == 4


def test_what_is_accepted_is_the_answer_of_each(site: WideSite) -> None:
    site.run_pass()
    directories = [directory for task in site.tasks for directory in site.runs.attempts(task)]
    names = {job.id: job.name for job in site.cluster.jobs.values()}
    for directory in directories:
        record = directory.submission()
        assert record is not None and names[JobId(record.job)] == directory.attempt.job_name
