"""What is due for a tracked job, given what is known."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.domain.job_phase import SubmissionState, SubmissionView
from hpc_agent.domain.outcome import SCRIPT_ADVICE
from hpc_agent.domain.status import TaskStatus
from hpc_agent.tracking.tracking_policy import (
    CancelTracked,
    EndTask,
    MarkStarted,
    PingTask,
    SendConsole,
    ShowMessage,
    TrackedJobSnapshot,
    Untrack,
    decide,
    tracked_outcome,
)

NOT_OPENED = "Slurm job 12 FAILED: its output file could not be opened"
TIME_LIMIT = "the time limit was reached; ask for more with --time (Slurm job 12)"
PREEMPTED = "Slurm job 12 was preempted and not requeued; submit it again"

NOW = datetime(2026, 5, 4, tzinfo=timezone.utc)
LOST_AFTER = 600.0
SUBMITTED = SubmissionView(SubmissionState.ACCEPTED, NOW, JobId("12"))


def live(state: JobState, job: str = "12", **more: object) -> LiveJob:
    return LiveJob(JobId(job), "train", state, state.value, **more)  # type: ignore[arg-type]


def record(state: JobState, job: str = "12", **more: object) -> JobRecord:
    return JobRecord(JobId(job), state, state.value, **more)  # type: ignore[arg-type]


PENDING = TrackedJobSnapshot(
    job="12", submitted=SUBMITTED, status=TaskStatus.QUEUED, jobs=(live(JobState.PENDING, reason="Priority"),)
)
RUNNING = TrackedJobSnapshot(
    job="12",
    submitted=SUBMITTED,
    status=TaskStatus.IN_PROGRESS,
    jobs=(live(JobState.RUNNING),),
    task_started=True,
    has_sidecar=True,
)
GONE = TrackedJobSnapshot(
    job="12",
    submitted=SUBMITTED,
    status=TaskStatus.IN_PROGRESS,
    records=(record(JobState.COMPLETED),),
    task_started=True,
)


def test_reason_for_waiting_becomes_the_status_message() -> None:
    assert decide(PENDING, LOST_AFTER) == (ShowMessage("Slurm job 12 is waiting (Priority)"),)
    assert decide(replace(PENDING, message="Slurm job 12 is waiting (Priority)"), LOST_AFTER) == ()
    soon = replace(PENDING, jobs=(live(JobState.PENDING, expected_start=NOW),))
    assert decide(soon, LOST_AFTER) == (ShowMessage("Slurm job 12 is waiting, expected to start 2026-05-04 00:00 UTC"),)


def test_job_that_runs_starts_its_task() -> None:
    started = replace(PENDING, jobs=(live(JobState.RUNNING),))
    assert decide(replace(started, has_sidecar=True), LOST_AFTER) == (MarkStarted(),)
    assert decide(started, LOST_AFTER) == (MarkStarted(), PingTask(), SendConsole())


def test_job_with_a_sidecar_needs_nothing() -> None:
    assert decide(RUNNING, LOST_AFTER) == ()
    assert decide(replace(RUNNING, has_sidecar=False), LOST_AFTER) == (PingTask(), SendConsole())


def test_requeued_job_keeps_its_task_alive() -> None:
    waits = replace(RUNNING, jobs=(live(JobState.PENDING, reason="BeginTime", restarts=1),))
    assert decide(waits, LOST_AFTER) == (ShowMessage("Slurm job 12 is waiting again (BeginTime)"), PingTask())


@pytest.mark.parametrize(
    "snapshot",
    [
        replace(PENDING, status=TaskStatus.STOPPED),
        replace(PENDING, status=TaskStatus.CREATED),
        replace(RUNNING, abort_requested=True),
        replace(RUNNING, status=TaskStatus.STOPPED),
    ],
)
def test_aborted_task_cancels_its_job(snapshot: TrackedJobSnapshot) -> None:
    assert decide(snapshot, LOST_AFTER) == (CancelTracked("its task was aborted"),)


def test_job_that_is_ending_is_not_cancelled_again() -> None:
    assert decide(replace(RUNNING, abort_requested=True, jobs=(live(JobState.COMPLETING),)), LOST_AFTER) == ()


def test_task_that_was_never_queued_does_not_cancel_its_job() -> None:
    assert decide(replace(PENDING, status=TaskStatus.CREATED, queued=False), LOST_AFTER) == (
        ShowMessage("Slurm job 12 is waiting (Priority)"),
    )


@pytest.mark.parametrize("snapshot", [RUNNING, PENDING, GONE])
def test_deleted_task_leaves_its_job_alone(snapshot: TrackedJobSnapshot) -> None:
    assert decide(replace(snapshot, status=None), LOST_AFTER) == (Untrack("its task was deleted"),)


@pytest.mark.parametrize("status", [TaskStatus.CREATED, TaskStatus.QUEUED])
def test_task_that_was_reset_leaves_its_job_alone(status: TaskStatus) -> None:
    assert decide(replace(RUNNING, status=status), LOST_AFTER) == (Untrack("its task was reset"),)


def test_task_stopped_by_the_watchdog_goes_on() -> None:
    silenced = replace(RUNNING, status=TaskStatus.STOPPED, silenced=True)
    assert decide(silenced, LOST_AFTER) == (MarkStarted(),)
    over = replace(GONE, status=TaskStatus.STOPPED, silenced=True)
    assert decide(over, LOST_AFTER) == (EndTask(TaskStatus.COMPLETED, "Slurm job 12 COMPLETED"),)


def test_missing_job_ends_its_task_only_when_it_is_lost() -> None:
    missing = replace(GONE, records=())
    assert decide(replace(missing, missing_seconds=LOST_AFTER), LOST_AFTER) == ()
    [end] = decide(replace(missing, missing_seconds=LOST_AFTER + 1), LOST_AFTER)
    assert isinstance(end, EndTask) and end.status is TaskStatus.FAILED and "lost" in end.reason


def test_job_that_may_be_requeued_ends_when_its_record_is_stable() -> None:
    failed = replace(GONE, records=(record(JobState.NODE_FAIL),))
    assert decide(failed, LOST_AFTER) == ()
    assert decide(replace(failed, record_stable=True), LOST_AFTER) == (
        EndTask(TaskStatus.FAILED, "node of the job failed (Slurm job 12); submit it again"),
    )


def test_sidecar_has_time_to_send_the_rest() -> None:
    assert decide(replace(GONE, has_sidecar=True, missing_seconds=5), LOST_AFTER) == ()
    assert decide(replace(GONE, has_sidecar=True, missing_seconds=11), LOST_AFTER) != ()


def test_array_ends_when_all_its_elements_have() -> None:
    array = TrackedJobSnapshot(
        job="12",
        submitted=SUBMITTED,
        expected=3,
        status=TaskStatus.IN_PROGRESS,
        is_array=True,
        task_started=True,
        jobs=(live(JobState.PENDING, "12_3", reason="JobArrayTaskLimit"),),
        records=(record(JobState.COMPLETED, "12_1"), record(JobState.FAILED, "12_2")),
    )
    words = "Slurm array 12 is waiting (JobArrayTaskLimit); 2 of 3 elements have ended"
    assert decide(array, LOST_AFTER) == (ShowMessage(words), PingTask())
    over = replace(array, jobs=(), records=(*array.records, record(JobState.CANCELLED, "12_3")))
    reason = "Slurm array 12: 1 COMPLETED, 1 FAILED (12_2), 1 CANCELLED (12_3)"
    assert decide(over, LOST_AFTER) == (EndTask(TaskStatus.FAILED, reason),)


@pytest.mark.parametrize(
    ("ended", "status", "reason"),
    [
        (record(JobState.COMPLETED), TaskStatus.COMPLETED, "Slurm job 12 COMPLETED"),
        (record(JobState.FAILED, exit_code=3), TaskStatus.FAILED, "Slurm job 12 FAILED: exit code 3"),
        (record(JobState.FAILED, signal=9), TaskStatus.FAILED, "Slurm job 12 FAILED: ended by signal 9"),
        (record(JobState.FAILED, signal=53), TaskStatus.FAILED, NOT_OPENED),
        (record(JobState.FAILED, signal=53, exit_code=1), TaskStatus.FAILED, NOT_OPENED),
        (record(JobState.CANCELLED, cancelled_by="7"), TaskStatus.STOPPED, "Slurm job 12 was cancelled by 7"),
        (record(JobState.TIMEOUT), TaskStatus.FAILED, TIME_LIMIT),
        (record(JobState.OUT_OF_MEMORY), TaskStatus.FAILED, "out of memory; ask for more with --mem (Slurm job 12)"),
        (record(JobState.PREEMPTED), TaskStatus.STOPPED, PREEMPTED),
        (
            record(JobState.COMPLETED, started=NOW, ended=NOW + timedelta(hours=25, seconds=3), nodes="n[1-2]"),
            TaskStatus.COMPLETED,
            "Slurm job 12 COMPLETED after 1-01:00:03 on n[1-2]",
        ),
    ],
)
def test_reason_of_each_end(ended: JobRecord, status: TaskStatus, reason: str) -> None:
    end = tracked_outcome("Slurm job 12", [ended], is_array=False)
    assert (end.status, end.reason) == (status, reason)
    assert end.output_not_opened is reason.endswith(SCRIPT_ADVICE.output)
