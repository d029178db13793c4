"""Staging jobs: what is due for each, and what its task shows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from fake_slurm import SUBMITTED, FakeSlurm, queue_row
from msgspec.structs import replace

from hpc_agent.clock import SYSTEM
from hpc_agent.config.settings import AllSettings, HpcSettings
from hpc_agent.daemon.job_staging import (
    AdoptStagingJob,
    FailStaging,
    FindStagingJob,
    StagingJobs,
    SubmitStagingJob,
    decide,
)
from hpc_agent.daemon.login_staging import PREPARING
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import JobId, QueueId, TaskId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob, UnclearAnswer, unconfirmed_record
from hpc_agent.domain.job_phase import JobSnapshot, SubmissionState, SubmissionView
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.snapshot import AttemptPolicy
from hpc_agent.runs.attempt_records import StagingJobRecord
from hpc_agent.runs.directory import RunsFolder

ATTEMPT = attempt_for("c", QueueId("q"), TaskId("a" * 32), "t")
QUEUE = Queue(QueueId("q"), "queue")
POLICY = AttemptPolicy()
NOW = SUBMITTED + timedelta(hours=1)
JOB = JobId("7")
ACCEPTED = JobSnapshot(submitted=SubmissionView(SubmissionState.ACCEPTED, SUBMITTED, JOB))
FAILED_SBATCH = SubmissionView(SubmissionState.UNCERTAIN, SUBMITTED, doubt=UnclearAnswer.UNKNOWN_ERROR)


def listed(state: JobState) -> tuple[LiveJob]:
    return (LiveJob(JOB, ATTEMPT.staging_job_name, state, state.value),)


def ended(state: JobState, *, seconds: float = 11, submit_count: int = 1) -> JobSnapshot:
    submitted = SubmissionView(SubmissionState.ACCEPTED, SUBMITTED, JOB, submit_count)
    records = (JobRecord(JOB, state, state.value),)
    return replace(ACCEPTED, submitted=submitted, records=records, record_stable=True, missing_seconds=seconds)


@pytest.mark.parametrize(
    ("snapshot", "action"),
    [
        (replace(ACCEPTED, jobs=listed(JobState.PENDING)), None),
        (replace(ACCEPTED, jobs=listed(JobState.RUNNING)), None),
        (replace(ACCEPTED, missing_seconds=600), None),
        (replace(ACCEPTED, missing_seconds=601), SubmitStagingJob(2)),
        (replace(ACCEPTED, records=(unconfirmed_record(JOB),), missing_seconds=601), None),
        (ended(JobState.FAILED, seconds=5), None),
        (ended(JobState.NODE_FAIL), SubmitStagingJob(2)),
        (replace(ended(JobState.NODE_FAIL), record_stable=False), None),
        (JobSnapshot(submitted=FAILED_SBATCH, jobs=listed(JobState.PENDING)), AdoptStagingJob(JOB)),
        (JobSnapshot(submitted=FAILED_SBATCH), FindStagingJob(give_up=False)),
        (JobSnapshot(submitted=replace(FAILED_SBATCH, looked_at=SUBMITTED)), FindStagingJob(give_up=True)),
        (JobSnapshot(submitted=replace(FAILED_SBATCH, looked_at=NOW)), FindStagingJob(give_up=False)),
        (JobSnapshot(submitted=replace(FAILED_SBATCH, doubt=None)), FindStagingJob(give_up=True)),
    ],
)
def test_what_is_due_for_a_staging_job(snapshot: JobSnapshot, action: object) -> None:
    assert decide(snapshot, NOW, POLICY) == action


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (ended(JobState.TIMEOUT), "the time limit was reached"),
        (ended(JobState.FAILED), "Slurm job 7 FAILED"),
        (ended(JobState.NODE_FAIL, submit_count=3), "node of the job failed"),
        (replace(ended(JobState.FAILED, submit_count=3, seconds=601), records=()), "job 7 is lost"),
    ],
)
def test_staging_fails_with_the_reason_of_its_job(snapshot: JobSnapshot, words: str) -> None:
    action = decide(snapshot, NOW, POLICY)
    assert isinstance(action, FailStaging)
    assert action.reason.startswith("the job that stages the task left no result: ")
    assert words in action.reason


def test_job_that_came_of_a_failed_sbatch_is_not_called_failed(tmp_path: Path) -> None:
    settings = AllSettings(hpc=HpcSettings(root=tmp_path))
    run = RunsFolder(settings.hpc.runs).of(ATTEMPT).create()
    failed = StagingJobRecord(at=SUBMITTED, queue="q", cluster="c", error="ERROR: gateway")
    run.write_stage_job(failed)
    slurm = FakeSlurm(tmp_path)
    slurm.squeue(queue_row("7", "PENDING", name=ATTEMPT.staging_job_name))
    stages = StagingJobs(slurm.scheduler(accounting="none"), settings, None, None, SYSTEM)  # type: ignore[arg-type]
    stages.update({ATTEMPT: JobSnapshot(submitted=failed.submitted)})
    assert "ERROR: gateway" in stages.status_message(ATTEMPT)
    assert stages.get(ATTEMPT, None, QUEUE, wait=False) is None  # type: ignore[arg-type]
    record = run.stage_job()
    assert record is not None
    assert record.job == "7"
    assert stages.status_message(ATTEMPT) == PREPARING
