"""Identity of a job: which records, and which renamed jobs, are of a certain submission."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob, unconfirmed_record
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.watcher.identity import ExpectedJob, own_records

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
OLD = NOW - timedelta(days=30)
JOB = JobId("7")
OURS = ExpectedJob("ours", NOW, has_unique_name=True)
SHARED = ExpectedJob("train.sh", NOW)


def record(name: str, submitted: datetime | None, state: JobState = JobState.FAILED) -> JobRecord:
    return JobRecord(JOB, state, state.value, name=name, submitted=submitted)


def confirmed(expected: ExpectedJob) -> ExpectedJob:
    return ExpectedJob(expected.name, expected.since, True, expected.has_unique_name)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (OURS, record("ours", NOW)),
        (OURS, record("ours", OLD)),  # a unique name needs no time: the controller's clock may be far off
        (OURS, record("", NOW)),
        (OURS, record("other", None, JobState.UNKNOWN)),  # an answer that did not come
        (confirmed(OURS), record("renamed", NOW)),
        (SHARED, record("train.sh", NOW)),
        (confirmed(SHARED), record("renamed", NOW)),
    ],
)
def test_record_of_the_submission_counts(expected: ExpectedJob, found: JobRecord) -> None:
    assert expected.own_record(found) == found


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (OURS, record("other", NOW)),
        (confirmed(OURS), record("other", OLD)),
        (SHARED, record("train.sh", OLD)),
        (confirmed(SHARED), record("other", OLD)),
    ],
)
def test_record_of_another_job_with_the_same_id_does_not_count(expected: ExpectedJob, found: JobRecord) -> None:
    assert expected.own_record(found) is None


def test_nameless_record_of_a_shared_name_is_unconfirmed() -> None:
    assert SHARED.own_record(record("", NOW)) == unconfirmed_record(JOB)


def test_renamed_job_is_known_only_once_it_was_confirmed() -> None:
    job = LiveJob(JOB, "renamed", JobState.RUNNING, "RUNNING", submitted=NOW)
    assert confirmed(OURS).is_renamed(job)
    assert not OURS.is_renamed(job)
    assert not confirmed(OURS).is_renamed(LiveJob(JOB, "renamed", JobState.RUNNING, "RUNNING", submitted=OLD))


class Accounting:
    """Scheduler that gives one record, or no answer."""

    def __init__(self, *records: JobRecord, answers: bool = True) -> None:
        self._records = records
        self._answers = answers
        self.calls = 0

    def records(self, _jobs: Any) -> dict[JobId, JobRecord]:
        self.calls += 1
        if not self._answers:
            raise SchedulerUnavailableError("no answer")
        return {found.id: found for found in self._records}


def test_silent_scheduler_leaves_all_records_unconfirmed() -> None:
    scheduler: Any = Accounting(answers=False)
    assert own_records(scheduler, {JOB: OURS}) == {JOB: unconfirmed_record(JOB)}


def test_records_are_asked_for_once_and_only_of_missing_jobs() -> None:
    scheduler: Any = Accounting(record("ours", NOW), record("other", NOW))
    assert own_records(scheduler, {}) == {}
    assert scheduler.calls == 0
    assert own_records(scheduler, {JOB: OURS, JobId("8"): SHARED}) == {}
    assert own_records(Accounting(record("ours", NOW)), {JOB: OURS}) == {JOB: record("ours", NOW)}  # type: ignore[arg-type]
    assert scheduler.calls == 1
