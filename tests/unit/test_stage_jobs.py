"""Staging in a job of its own: what becomes of it when the scheduler refuses, is silent, or loses the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import cast

import pytest
from manual_clock import ManualClock

from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.job_staging import StagingJobs
from hpc_agent.daemon.login_staging import PREPARING
from hpc_agent.daemon.options import DaemonOptions, JobNaming
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import JobId, QueueId, TaskId
from hpc_agent.domain.job import (
    Accepted,
    JobRecord,
    JobState,
    LimitReached,
    LiveJob,
    OutcomeUnknown,
    Refused,
    SubmitResult,
    UnclearAnswer,
    unconfirmed_record,
)
from hpc_agent.domain.job_phase import JobSnapshot
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.task import Task
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.runs.attempt_records import StagingJobRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder
from hpc_agent.schedulers.base import Scheduler, SubmitRequest
from hpc_agent.schedulers.slurm.script import SbatchScript
from hpc_agent.schedulers.slurm.settings import SlurmSettings
from hpc_agent.staging import StagedTask
from hpc_agent.submission.render import Renderer
from hpc_agent.watcher.history import ObservationHistory
from hpc_agent.watcher.identity import ExpectedJob, own_records

TASK = TaskId("a" * 32)
QUEUE = Queue(QueueId("q"), "gpu")


@dataclass
class Cluster:
    """A scheduler that answers as is set."""

    answers: list[SubmitResult] = field(default_factory=list)
    live: list[JobId] = field(default_factory=list)
    known: dict[JobId, JobRecord] = field(default_factory=dict)
    found: JobId | None = None
    submitted: list[SubmitRequest] = field(default_factory=list)
    cancelled: list[JobId] = field(default_factory=list)
    name: str = ""

    def cluster(self) -> str:
        return "c"

    def submit(self, request: SubmitRequest) -> SubmitResult:
        self.submitted.append(request)
        self.name = request.job_name
        return self.answers.pop(0)

    def live_jobs(self) -> Sequence[LiveJob]:
        return [LiveJob(job, self.name, JobState.RUNNING, "RUNNING") for job in self.live]

    def records(self, jobs: Mapping[JobId, datetime]) -> Mapping[JobId, JobRecord]:
        return {job: self.known[job] for job in jobs if job in self.known}

    def find(self, _job_name: str, _since: datetime) -> JobId | None:
        return self.found

    def cancel(self, jobs: Sequence[JobId], *, only_pending: bool = False) -> None:
        assert not only_pending
        self.cancelled += jobs


class Site:
    """A daemon's staging of one task on such a cluster."""

    def __init__(self, folder: Path) -> None:
        settings = AllSettings(hpc=HpcSettings(root=folder))
        self.cluster = Cluster()
        self.clock = ManualClock()
        self.attempt = attempt_for("c", QUEUE.id, TASK, "t")
        self._history = ObservationHistory(self.clock)
        self.run: RunDirectory = RunsFolder(settings.hpc.runs).of(self.attempt)
        launch = JobLaunchConfig(
            folder / "clearml.conf", ["hpc-agent"], DaemonOptions(batch_system="slurm"), cast(JobNaming, None)
        )
        self.stages = StagingJobs(
            cast(Scheduler, self.cluster), settings, launch, Renderer(SbatchScript(SlurmSettings())), self.clock
        )

    def look(self) -> StagedTask | None:
        """As in a pass: the jobs are observed, then what is due is done."""
        if self.run.stage_job() is not None:
            self.stages.update({self.attempt: self.observe()})
        return self.stages.get(self.attempt, Task(TASK), QUEUE, wait=False)

    def observe(self) -> JobSnapshot:
        name, missing = self.attempt.staging_job_name, {}
        jobs = tuple(job for job in self.cluster.live_jobs() if job.name == name)
        if self.record.job and not jobs:
            missing[JobId(self.record.job)] = ExpectedJob(name, self.record.at, True, True)
        records = own_records(cast(Scheduler, self.cluster), missing)
        snapshot = JobSnapshot(submitted=self.record.submitted, jobs=jobs, records=tuple(records.values()))
        return self._history.extend(snapshot, self.run.staging_observations)

    def look_after(self, seconds: float) -> StagedTask | None:
        self.clock.advance(seconds)
        return self.look()

    @property
    def record(self) -> StagingJobRecord:
        record = self.run.stage_job()
        assert record is not None
        return record

    def submit(self, job: str = "7") -> None:
        """Have it submitted, and listed."""
        self.cluster.answers.append(Accepted(JobId(job)))
        assert self.look() is None
        self.cluster.live = [JobId(job)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def ended(state: JobState, exit_code: int = 0) -> JobRecord:
    return JobRecord(JobId("7"), state, state.value, exit_code=exit_code, submitted=ManualClock().now())


def test_one_job_is_submitted_and_waited_for(site: Site) -> None:
    site.submit()
    assert (site.record.job, site.record.submit_count) == ("7", 1)
    for _ in range(5):
        assert site.look_after(10) is None
    assert len(site.cluster.submitted) == 1
    assert "clearml_stage_" in site.cluster.submitted[0].script.read_text(encoding="utf-8")


def test_what_it_failed_of_is_the_tasks_failure(site: Site) -> None:
    site.submit()
    site.run.stage_failure.write_text("no package of that name", encoding="utf-8")
    with pytest.raises(EnvironmentBuildError, match="no package of that name"):
        site.look_after(10)


class TestSubmission:
    def test_refused(self, site: Site) -> None:
        site.cluster.answers.append(Refused("Invalid account"))
        with pytest.raises(EnvironmentBuildError, match="refused the staging job: Invalid account"):
            site.look()

    @pytest.mark.parametrize("answer", [LimitReached("QOSMaxSubmitJobPerUserLimit"), OutcomeUnknown("timed out")])
    def test_no_other_is_tried_for_a_while(self, site: Site, answer: SubmitResult) -> None:
        site.cluster.answers = [answer, Accepted(JobId("7"))]
        site.look()
        other = attempt_for("c", QUEUE.id, TaskId("b" * 32), "t")
        site.clock.advance(25)
        assert site.stages.get(other, Task(other.task), QUEUE, wait=False) is None
        assert len(site.cluster.submitted) == 1
        site.clock.advance(10)
        site.stages.get(other, Task(other.task), QUEUE, wait=False)
        assert len(site.cluster.submitted) == 2

    def test_without_an_answer_it_is_looked_for_before_another(self, site: Site) -> None:
        site.cluster.answers = [OutcomeUnknown("timed out"), Accepted(JobId("8"))]
        site.look()
        site.look_after(55)
        assert len(site.cluster.submitted) == 1
        site.look_after(10)
        assert (site.record.job, site.record.submit_count) == ("8", 1)

    def test_without_an_answer_it_is_found(self, site: Site) -> None:
        site.cluster.answers = [OutcomeUnknown("no id", UnclearAnswer.NO_JOB_ID)]
        site.look()
        site.cluster.found = JobId("7")
        site.look_after(10)
        assert site.record.job == "7"
        assert len(site.cluster.submitted) == 1

    def test_an_unknown_error_is_a_refusal_if_no_job_comes_of_it(self, site: Site) -> None:
        site.cluster.answers = [OutcomeUnknown("gateway closed", UnclearAnswer.UNKNOWN_ERROR)]
        site.look()
        assert "gateway closed" in site.stages.status_message(site.attempt)
        # The time counts from the first look that was answered.
        site.look_after(3600)
        site.look_after(50)
        with pytest.raises(EnvironmentBuildError, match="refused the staging job: gateway closed"):
            site.look_after(20)


class TestEnd:
    """Of a job that left no result."""

    def test_it_failed(self, site: Site) -> None:
        site.submit()
        site.cluster.live, site.cluster.known = [], {JobId("7"): ended(JobState.TIMEOUT)}
        site.look_after(10)
        site.look_after(5)
        with pytest.raises(EnvironmentBuildError, match="left no result"):
            site.look_after(10)

    def test_the_site_ended_it_and_three_are_tried(self, site: Site) -> None:
        site.submit()
        site.cluster.live, site.cluster.known = [], {JobId("7"): ended(JobState.NODE_FAIL)}
        site.cluster.answers = [Accepted(JobId("7")), Accepted(JobId("7"))]
        for number in (2, 3):
            site.look_after(10)
            site.look_after(15)
            assert site.record.submit_count == number
            site.clock.advance(10)
        site.look()
        with pytest.raises(EnvironmentBuildError, match="left no result"):
            site.look_after(15)
        assert len(site.cluster.submitted) == 3

    def test_it_is_unknown(self, site: Site) -> None:
        site.submit()
        site.cluster.live, site.cluster.answers = [], [Accepted(JobId("8"))]
        site.look_after(10)
        for _ in range(int(AllSettings().hpc.lost_after) // 60):
            site.look_after(60)
        assert site.record.job == "7"
        site.look_after(60)
        assert (site.record.job, site.record.submit_count) == ("8", 2)

    def test_silence_is_not_an_end(self, site: Site) -> None:
        site.submit()
        site.cluster.live, site.cluster.known = [], {JobId("7"): unconfirmed_record(JobId("7"))}
        site.look_after(10)
        site.look_after(24 * 3600)
        assert site.record.job == "7"
        assert site.observe().missing_seconds == 0

    def test_it_is_there_again(self, site: Site) -> None:
        site.submit()
        site.cluster.live = []
        site.look_after(10)
        site.look_after(10)
        assert site.observe().missing_seconds == 10
        site.cluster.live = [JobId("7")]
        site.look_after(10)
        assert site.observe().missing_seconds == 0


class TestTaskThatLeft:
    def test_its_job_is_cancelled(self, site: Site) -> None:
        site.submit()
        site.look_after(10)
        site.stages.drop(site.attempt)
        assert site.cluster.cancelled == ["7"]

    def test_there_is_none(self, site: Site) -> None:
        site.stages.drop(site.attempt)
        assert site.cluster.cancelled == []
        assert site.stages.status_message(site.attempt) == PREPARING
