"""What passes tell each other: for how long a job has been gone, and whether its record stays as it is."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from manual_clock import ManualClock
from msgspec.structs import replace

from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import JobId, QueueId, TaskId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob, unconfirmed_record
from hpc_agent.domain.job_phase import SubmissionState, SubmissionView
from hpc_agent.domain.snapshot import AttemptSnapshot
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.watcher.history import ObservationHistory

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
JOB = JobId("7")
ATTEMPT = attempt_for("c", QueueId("q"), TaskId("a" * 32), "t")
GONE = AttemptSnapshot(ATTEMPT, submitted=SubmissionView(SubmissionState.ACCEPTED, NOW, JOB))
SILENT = replace(GONE, records=(unconfirmed_record(JOB),))
SAID_TO_RUN = replace(GONE, records=(JobRecord(JOB, JobState.RUNNING, "RUNNING"),))
FAILED = replace(GONE, records=(JobRecord(JOB, JobState.NODE_FAIL, "NODE_FAIL"),))
LIVE = replace(GONE, jobs=(LiveJob(JOB, ATTEMPT.job_name, JobState.RUNNING, "RUNNING"),))


class Passes:
    """Of one daemon, or with ``cron`` each of another process."""

    def __init__(self, folder: Path, *, cron: bool) -> None:
        self._directory = RunsFolder(folder).of(ATTEMPT).create()
        self._cron = cron
        self._clock = ManualClock(NOW)
        self._history = ObservationHistory(self._clock)

    def see(self, snapshot: AttemptSnapshot, *, times: int = 1, every: float = 60) -> AttemptSnapshot:
        """The last of so many looks, the first of them after ``every`` seconds."""
        for _ in range(times):
            self._clock.advance(every)
            if self._cron:
                self._history = ObservationHistory(self._clock)
            seen = self._history.extend(snapshot, self._directory.observations)
        return seen


@pytest.fixture(params=["daemon", "cron"])
def passes(request: pytest.FixtureRequest, tmp_path: Path) -> Passes:
    return Passes(tmp_path, cron=request.param == "cron")


def test_missing_seconds_add_up_while_every_source_answers(passes: Passes) -> None:
    passes.see(LIVE)
    assert passes.see(GONE).missing_seconds == 0
    assert passes.see(GONE, times=10).missing_seconds == 600


@pytest.mark.parametrize("doubt", [SILENT, SAID_TO_RUN])
def test_unconfirmed_record_stops_missing_seconds(passes: Passes, doubt: AttemptSnapshot) -> None:
    passes.see(GONE, times=5)
    seen = passes.see(doubt, times=50)
    assert (seen.missing_seconds, seen.unconfirmed_seconds) == (240, 3000)
    seen = passes.see(GONE)
    assert (seen.missing_seconds, seen.unconfirmed_seconds) == (300, 0)


def test_unconfirmed_record_stops_missing_seconds_for_a_day_only(passes: Passes) -> None:
    assert passes.see(SILENT, times=24 * 12, every=300).missing_seconds == 0
    assert passes.see(SILENT, times=4, every=300).missing_seconds >= 600


def test_record_is_stable_once_it_stayed_the_same_for_some_seconds(passes: Passes) -> None:
    """Two passes may follow each other at once."""
    assert not passes.see(FAILED, times=3, every=0.001).record_stable
    assert passes.see(FAILED, times=2, every=5).record_stable
    assert not passes.see(SILENT, every=5).record_stable
    assert not passes.see(FAILED, every=5).record_stable


OLD_ATTEMPT = {
    "at": "2026-01-01T00:00:00Z",
    "missing_seconds": 240.0,
    "is_gone": True,
    "starts_seen": 2,
    "record": {"id": "7", "state": "NODE_FAIL", "raw_state": "NODE_FAIL"},
    "record_for": 3.0,
}
OLD_TRACKED = {"gone_since": "2025-12-31T23:56:00Z", "records": [["7", "FAILED", ""]]}


@pytest.mark.parametrize("old", [OLD_ATTEMPT, OLD_TRACKED], ids=["attempt", "tracked"])
def test_history_of_earlier_versions_goes_on(tmp_path: Path, old: dict[str, object]) -> None:
    file = tmp_path / "seen.json"
    file.write_text(json.dumps(old))
    clock = ManualClock(NOW)
    history = ObservationHistory(clock)
    assert history.extend(GONE, file).missing_seconds == 240
    clock.advance(60)
    assert history.extend(GONE, file).missing_seconds == 300
    assert ObservationHistory(clock).extend(GONE, file).missing_seconds == 300


def test_unreadable_history_starts_over(tmp_path: Path) -> None:
    file = tmp_path / "seen.json"
    file.write_text("no record")
    assert ObservationHistory(ManualClock(NOW)).extend(GONE, file).missing_seconds == 0


def test_job_that_runs_is_known_to_run_for_as_long(passes: Passes) -> None:
    assert passes.see(LIVE).running_seconds == 0
    assert passes.see(LIVE, times=3).running_seconds >= 120
    assert passes.see(GONE).running_seconds == 0
    assert passes.see(LIVE).running_seconds == 0


def test_history_of_one_submission_is_not_that_of_the_next(passes: Passes) -> None:
    passes.see(GONE, times=12)
    again = replace(GONE, submitted=SubmissionView(SubmissionState.ACCEPTED, NOW, JOB, submit_count=2))
    assert passes.see(again).missing_seconds == 0
    assert passes.see(again).missing_seconds == 60
