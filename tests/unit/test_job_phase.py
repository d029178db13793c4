"""Phase of a job: what each set of facts gives, and which phase may follow which."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
from msgspec.structs import replace

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S, JobRecord, JobState, LiveJob, unconfirmed_record
from hpc_agent.domain.job_phase import TRANSITIONS, JobPhase, JobSnapshot, SubmissionState, SubmissionView, job_phase

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
JOB = JobId("7")
LOST_AFTER = 600.0

ACCEPTED = JobSnapshot(submitted=SubmissionView(SubmissionState.ACCEPTED, NOW, JOB))
ARRAY = replace(ACCEPTED, expected=2)


def listed(*states: JobState, restarts: int = 0) -> JobSnapshot:
    jobs = tuple(LiveJob(JOB, "name", state, state.value, restarts=restarts) for state in states)
    return replace(ACCEPTED, jobs=jobs)


def gone(*states: JobState, stable: bool = False, missing: float = 0.0) -> JobSnapshot:
    records = tuple(JobRecord(JOB, state, state.value) for state in states)
    return replace(ACCEPTED, records=records, record_stable=stable, missing_seconds=missing)


UNCLEAR = SubmissionView(SubmissionState.UNCERTAIN, NOW)
SILENT = replace(ACCEPTED, records=(unconfirmed_record(JOB),))


@pytest.mark.parametrize(
    ("snapshot", "phase"),
    [
        (JobSnapshot(), JobPhase.NOT_SUBMITTED),
        (JobSnapshot(submitted=replace(UNCLEAR, state=SubmissionState.INTENDED)), JobPhase.SUBMIT_INTENDED),
        (JobSnapshot(submitted=UNCLEAR), JobPhase.SUBMIT_UNCLEAR),
        (replace(listed(JobState.PENDING), submitted=UNCLEAR), JobPhase.PENDING),
        (listed(JobState.PENDING), JobPhase.PENDING),
        (listed(JobState.PENDING, restarts=1), JobPhase.REQUEUED),
        (listed(JobState.REQUEUED), JobPhase.REQUEUED),
        (listed(JobState.RUNNING), JobPhase.RUNNING),
        (listed(JobState.UNKNOWN), JobPhase.RUNNING),
        (listed(JobState.PENDING, JobState.RUNNING), JobPhase.RUNNING),
        (listed(JobState.COMPLETING), JobPhase.ENDING),
        (gone(), JobPhase.MISSING),
        (gone(missing=LOST_AFTER), JobPhase.MISSING),
        (gone(missing=LOST_AFTER + 1), JobPhase.LOST),
        (SILENT, JobPhase.UNCONFIRMED),
        (gone(JobState.RUNNING, missing=LOST_AFTER + 1), JobPhase.UNCONFIRMED),
        (replace(SILENT, unconfirmed_seconds=UNCONFIRMED_LIMIT_S + 1), JobPhase.MISSING),
        (gone(JobState.COMPLETED), JobPhase.ENDED),
        (gone(JobState.NODE_FAIL), JobPhase.MAY_RETURN),
        (gone(JobState.NODE_FAIL, stable=True), JobPhase.ENDED),
        (gone(JobState.REVOKED, stable=True), JobPhase.MAY_RETURN),
        (gone(JobState.REVOKED, stable=True, missing=LOST_AFTER + 1), JobPhase.ENDED),
        (replace(gone(JobState.COMPLETED), expected=2), JobPhase.MISSING),
        (replace(gone(JobState.COMPLETED, JobState.FAILED), expected=2), JobPhase.ENDED),
        (replace(gone(JobState.COMPLETED, JobState.UNKNOWN), expected=2), JobPhase.UNCONFIRMED),
    ],
)
def test_phase_of_each_set_of_facts(snapshot: JobSnapshot, phase: JobPhase) -> None:
    assert job_phase(snapshot, LOST_AFTER) is phase


def test_each_phase_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(JobPhase)
    reached = set().union(*TRANSITIONS.values())
    assert reached | {JobPhase.NOT_SUBMITTED} == set(JobPhase)


def test_job_that_started_is_never_pending_for_the_first_time_again() -> None:
    for phase in (JobPhase.REQUEUED, JobPhase.RUNNING, JobPhase.ENDING):
        assert JobPhase.PENDING not in TRANSITIONS[phase]


def test_diagram_is_drawn_from_the_table() -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "diagrams", "--check"], check=True)
