"""What is due for a tracked job, given what is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.domain.status import TaskStatus
from hpc_agent.tracking.decide import (
    CancelTracked,
    EndTask,
    MarkStarted,
    PingTask,
    SendConsole,
    ShowMessage,
    TrackedJobSnapshot,
    Untrack,
    decide,
)
from hpc_agent.tracking.tracked_outcome import tracked_outcome

NOW = datetime(2026, 5, 4, tzinfo=timezone.utc)
LOST_AFTER = 600.0


def live(state: JobState, job: str = "12", **more: object) -> LiveJob:
    return LiveJob(JobId(job), "train", state, state.value, **more)  # type: ignore[arg-type]


def record(state: JobState, job: str = "12", **more: object) -> JobRecord:
    return JobRecord(JobId(job), state, state.value, **more)  # type: ignore[arg-type]


PENDING = TrackedJobSnapshot("12", TaskStatus.QUEUED, live=(live(JobState.PENDING, reason="Priority"),))
RUNNING = TrackedJobSnapshot("12", TaskStatus.IN_PROGRESS, live=(live(JobState.RUNNING),), begun=True, inside=True)
GONE = TrackedJobSnapshot("12", TaskStatus.IN_PROGRESS, ended=(record(JobState.COMPLETED),), begun=True)


def test_a_waiting_job_is_talked_about() -> None:
    assert decide(PENDING, LOST_AFTER) == (ShowMessage("Slurm job 12 is waiting (Priority)"),)
    assert decide(replace(PENDING, message="Slurm job 12 is waiting (Priority)"), LOST_AFTER) == ()
    soon = replace(PENDING, live=(live(JobState.PENDING, expected_start=NOW),))
    assert decide(soon, LOST_AFTER) == (ShowMessage("Slurm job 12 is waiting, expected to start 2026-05-04 00:00 UTC"),)


def test_a_job_that_runs_begins_its_task() -> None:
    started = replace(PENDING, live=(live(JobState.RUNNING),))
    assert decide(replace(started, inside=True), LOST_AFTER) == (MarkStarted(),)
    assert decide(started, LOST_AFTER) == (MarkStarted(), PingTask(), SendConsole())


def test_a_job_that_is_watched_from_inside_needs_nothing() -> None:
    assert decide(RUNNING, LOST_AFTER) == ()
    assert decide(replace(RUNNING, inside=False), LOST_AFTER) == (PingTask(), SendConsole())


def test_a_requeued_job_keeps_its_task_alive() -> None:
    waits = replace(RUNNING, live=(live(JobState.PENDING, reason="BeginTime", restarts=1),))
    assert decide(waits, LOST_AFTER) == (ShowMessage("Slurm job 12 was requeued and waits (BeginTime)"), PingTask())


@pytest.mark.parametrize(
    "snapshot",
    [
        replace(PENDING, status=TaskStatus.STOPPED),
        replace(PENDING, status=TaskStatus.CREATED),
        replace(RUNNING, abort_requested=True),
        replace(RUNNING, status=TaskStatus.STOPPED),
    ],
)
def test_an_aborted_task_cancels_its_job(snapshot: TrackedJobSnapshot) -> None:
    assert decide(snapshot, LOST_AFTER) == (CancelTracked("its task was aborted"),)


def test_a_job_that_is_ending_is_not_cancelled_again() -> None:
    assert decide(replace(RUNNING, abort_requested=True, live=(live(JobState.COMPLETING),)), LOST_AFTER) == ()


def test_a_task_that_waits_on_no_queue_is_no_reason_to_cancel() -> None:
    assert decide(replace(PENDING, status=TaskStatus.CREATED, queued=False), LOST_AFTER) == (
        ShowMessage("Slurm job 12 is waiting (Priority)"),
    )


@pytest.mark.parametrize("snapshot", [RUNNING, PENDING, GONE])
def test_a_deleted_task_leaves_its_job_alone(snapshot: TrackedJobSnapshot) -> None:
    assert decide(replace(snapshot, status=None), LOST_AFTER) == (Untrack("its task was deleted"),)


@pytest.mark.parametrize("status", [TaskStatus.CREATED, TaskStatus.QUEUED])
def test_a_task_that_was_reset_leaves_its_job_alone(status: TaskStatus) -> None:
    assert decide(replace(RUNNING, status=status), LOST_AFTER) == (Untrack("its task was reset"),)


def test_a_task_that_the_server_stopped_for_its_silence_goes_on() -> None:
    silenced = replace(RUNNING, status=TaskStatus.STOPPED, silenced=True)
    assert decide(silenced, LOST_AFTER) == (MarkStarted(),)
    over = replace(GONE, status=TaskStatus.STOPPED, silenced=True)
    assert decide(over, LOST_AFTER) == (EndTask(TaskStatus.COMPLETED, "Slurm job 12 COMPLETED"),)


def test_absence_is_no_verdict() -> None:
    missing = replace(GONE, ended=(), missing=1)
    assert decide(replace(missing, missing_seconds=LOST_AFTER), LOST_AFTER) == ()
    [end] = decide(replace(missing, missing_seconds=LOST_AFTER + 1), LOST_AFTER)
    assert isinstance(end, EndTask) and end.status is TaskStatus.FAILED and "lost" in end.reason


def test_a_job_that_may_be_requeued_ends_when_its_record_stands_still() -> None:
    failed = replace(GONE, ended=(record(JobState.NODE_FAIL),))
    assert decide(failed, LOST_AFTER) == ()
    assert decide(replace(failed, record_stable=True), LOST_AFTER) == (
        EndTask(TaskStatus.FAILED, "Slurm job 12 NODE_FAIL: a node failed; submit it again"),
    )


def test_what_may_still_be_sending_is_given_a_moment() -> None:
    assert decide(replace(GONE, inside=True, missing_seconds=5), LOST_AFTER) == ()
    assert decide(replace(GONE, inside=True, missing_seconds=11), LOST_AFTER) != ()


def test_an_array_ends_when_all_its_elements_have() -> None:
    array = TrackedJobSnapshot(
        "12",
        TaskStatus.IN_PROGRESS,
        is_array=True,
        begun=True,
        live=(live(JobState.PENDING, "12_3", reason="JobArrayTaskLimit"),),
        ended=(record(JobState.COMPLETED, "12_1"), record(JobState.FAILED, "12_2")),
    )
    words = "Slurm array 12 is waiting (JobArrayTaskLimit); 2 of 3 elements have ended"
    assert decide(array, LOST_AFTER) == (ShowMessage(words), PingTask())
    over = replace(array, live=(), ended=(*array.ended, record(JobState.CANCELLED, "12_3")))
    reason = "Slurm array 12: 1 COMPLETED, 1 FAILED (12_2), 1 CANCELLED (12_3)"
    assert decide(over, LOST_AFTER) == (EndTask(TaskStatus.FAILED, reason),)


@pytest.mark.parametrize(
    ("ended", "status", "reason"),
    [
        (record(JobState.COMPLETED), TaskStatus.COMPLETED, "COMPLETED"),
        (record(JobState.FAILED, exit_code=3), TaskStatus.FAILED, "FAILED: exit code 3"),
        (record(JobState.FAILED, signal=9), TaskStatus.FAILED, "FAILED: ended by signal 9"),
        (record(JobState.FAILED, signal=53), TaskStatus.FAILED, "FAILED: its output file could not be opened"),
        (record(JobState.CANCELLED, cancelled_by="7"), TaskStatus.STOPPED, "CANCELLED: cancelled by user 7"),
        (record(JobState.TIMEOUT), TaskStatus.FAILED, "TIMEOUT: the time limit was reached; ask for more with --time"),
        (record(JobState.OUT_OF_MEMORY), TaskStatus.FAILED, "OUT_OF_MEMORY: it ran out of memory; ask for more with"),
        (record(JobState.PREEMPTED), TaskStatus.STOPPED, "PREEMPTED: it was preempted and not requeued"),
        (
            record(JobState.COMPLETED, started=NOW, ended=NOW + timedelta(hours=25, seconds=3), nodes="n[1-2]"),
            TaskStatus.COMPLETED,
            "COMPLETED after 1-01:00:03 on n[1-2]",
        ),
    ],
)
def test_the_end_is_told_in_slurm_s_words(ended: JobRecord, status: TaskStatus, reason: str) -> None:
    seen, words = tracked_outcome("12", [ended], is_array=False)
    assert seen is status
    assert words.startswith(f"Slurm job 12 {reason}")
