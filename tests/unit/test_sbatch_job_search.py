"""Which job was submitted for a task, where only its name tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.tracking.job_search import AmbiguousJobError, JobSearch
from hpc_agent.tracking.tracked_records import TrackedJobRecord, TrackedRoot, TrackingPlan
from hpc_agent.watcher.identity import carries_name

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
PLAN = TrackingPlan(task="a" * 32, since=NOW, job_name="train.sh")


@dataclass
class Queue:
    """A scheduler that lists ``live`` and knows ``ended``."""

    live: Sequence[LiveJob] = ()
    ended: Mapping[JobId, datetime] = field(default_factory=dict)

    def live_jobs(self) -> Sequence[LiveJob]:
        return self.live

    def find(self, _name: str, _since: datetime) -> JobId | None:
        return max(self.ended, key=lambda job: self.ended[job], default=None)

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        known = {job: self.ended[job] for job in jobs if job in self.ended}
        return {
            job: JobRecord(job, JobState.COMPLETED, "COMPLETED", name="train.sh", submitted=at)
            for job, at in known.items()
        }


def live(number: str, seconds: float, name: str = "train.sh") -> LiveJob:
    return LiveJob(JobId(number), name, JobState.PENDING, "PENDING", submitted=NOW + timedelta(seconds=seconds))


def by_name(folder: Path, queue: Queue, *, exists: bool, taken: str = "") -> JobId | None:
    folders = TrackedRoot(folder)
    if taken:
        folders.of(TaskId("b" * 32)).create(PLAN).write_job(TrackedJobRecord(id=taken))
    own = folders.of(TaskId("a" * 32)).create(PLAN)
    identifier = JobSearch(queue, folders)  # type: ignore[arg-type]
    return identifier.by_name(own, PLAN, NOW + timedelta(seconds=1), exists=exists)


@pytest.mark.parametrize("exists", [True, False])
def test_a_job_of_the_name_and_the_time_is_the_one(tmp_path: Path, exists: bool) -> None:
    queue = Queue([live("5", -40), live("6", 0), live("7", 30), live("8", 0, "other")])
    assert by_name(tmp_path, queue, exists=exists) == "6"


@pytest.mark.parametrize("number", ["6_1", "6+0", "6"])
def test_an_array_and_a_heterogeneous_job_have_the_number_that_sbatch_gives(tmp_path: Path, number: str) -> None:
    assert by_name(tmp_path, Queue([live(number, 0)]), exists=True) == "6"


def test_where_sbatch_ended_well_the_only_one_is_it_though_the_clocks_differ(tmp_path: Path) -> None:
    assert by_name(tmp_path, Queue([live("5", -40)]), exists=True) == "5"


def test_where_sbatch_failed_one_of_another_time_may_be_meant_or_not(tmp_path: Path) -> None:
    for seconds in (-40, 40):
        with pytest.raises(AmbiguousJobError):
            by_name(tmp_path, Queue([live("5", seconds)]), exists=False)


def test_of_two_that_fit_neither_is_taken(tmp_path: Path) -> None:
    with pytest.raises(AmbiguousJobError, match="5, 6"):
        by_name(tmp_path, Queue([live("5", 0), live("6", 1)]), exists=True)


def test_a_job_that_another_task_has_is_not_the_one(tmp_path: Path) -> None:
    assert by_name(tmp_path, Queue([live("5", 0), live("6", 1)]), exists=True, taken="5") == "6"


def test_one_that_has_ended_is_found_and_no_other_is(tmp_path: Path) -> None:
    assert by_name(tmp_path, Queue(ended={JobId("5"): NOW}), exists=False) == "5"
    assert by_name(tmp_path, Queue(), exists=True) is None


@pytest.mark.parametrize("exists", [True, False])
def test_one_that_has_ended_is_not_taken_for_one_that_is_still_listed(tmp_path: Path, exists: bool) -> None:
    queue = Queue([live("5", -40)], {JobId("6"): NOW})
    assert by_name(tmp_path, queue, exists=exists) == "6"


def test_names_are_compared_as_far_as_slurm_shows_them() -> None:
    assert carries_name("two lines", "two\nlines")
    assert carries_name("ä" * 127, "ä" * 200)
    assert not carries_name("train", "train.sh")
    assert not carries_name("", "")
