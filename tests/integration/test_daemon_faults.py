"""Daemons that die or meet: what a run directory tells the next one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from hpc_agent.daemon.run_state import read
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.runs.attempt_records import ClaimRecord, DoneRecord, StagingJobRecord, SubmissionRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def directory(folder: Path) -> RunDirectory:
    return RunsFolder(folder).of(attempt_for("c", QueueId("q"), TaskId("a" * 32), "t")).create()


def tried(number: int, at: datetime = NOW) -> SubmissionRecord:
    return SubmissionRecord(state="intended", at=at, queue="q", cluster="c", submit_count=number)


def test_of_two_daemons_one_submits_first_and_one_tries_again(tmp_path: Path) -> None:
    run = directory(tmp_path)
    assert run.first_submission(tried(1))
    assert not run.first_submission(tried(1))
    mine = tried(2)
    assert run.first_try(mine) is mine
    assert run.first_try(tried(2, NOW + timedelta(minutes=9))).at == NOW


def test_the_count_of_restarts_is_not_forgotten_for_an_attempt_of_another_cluster(tmp_path: Path) -> None:
    """Both see the same entry; the one that did not get it finds that the task left the queue."""
    ran, task = directory(tmp_path), TaskId("a" * 32)
    elsewhere = RunsFolder(tmp_path).of(attempt_for("d", QueueId("q"), task, "t")).create()
    assert not elsewhere.has_rival()
    assert ran.first_claim(ClaimRecord(state="won", at=NOW, owner="job:7", queue="q", cluster="c"))
    assert elsewhere.has_rival()
    assert not ran.has_rival()
    ran.write_settled(DoneRecord(at=NOW, why="over"))
    assert not elsewhere.has_rival()


def test_a_staging_job_alone_names_its_queue_and_cluster(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.write_stage_job(StagingJobRecord(at=NOW, queue="q", cluster="c", job="8"))
    found = read(run)
    assert (found.queue, found.cluster, found.job) == ("q", "c", None)
    run.first_submission(tried(1))
    run.stage.write_text("{}")
    assert read(run).staging is None


def test_a_claim_alone_names_its_queue_and_cluster(tmp_path: Path) -> None:
    """Where the other records were deleted: a job's number means nothing on another cluster."""
    run = directory(tmp_path)
    assert run.first_claim(ClaimRecord(state="won", at=NOW, owner="job:7", queue="q", cluster="c"))
    found = read(run)
    assert (found.queue, found.cluster, found.job) == ("q", "c", "7")
    assert found.submitted is None
