"""What passes tell each other: for how long a job has been gone, and whether its record stays as it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from manual_clock import ManualClock

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


def test_a_job_is_gone_for_as_long_as_every_source_says_that_it_knows_nothing(passes: Passes) -> None:
    passes.see(LIVE)
    assert passes.see(GONE).missing_seconds == 0
    assert passes.see(GONE, times=10).missing_seconds == 600


@pytest.mark.parametrize("doubt", [SILENT, SAID_TO_RUN])
def test_a_silent_source_or_one_that_has_it_for_alive_makes_it_no_longer_gone(
    passes: Passes, doubt: AttemptSnapshot
) -> None:
    passes.see(GONE, times=5)
    seen = passes.see(doubt, times=50)
    assert (seen.missing_seconds, seen.unconfirmed_seconds) == (240, 3000)
    seen = passes.see(GONE)
    assert (seen.missing_seconds, seen.unconfirmed_seconds) == (300, 0)


def test_not_even_a_source_that_is_silent_for_ever_is_waited_for_without_end(passes: Passes) -> None:
    assert passes.see(SILENT, times=24 * 12, every=300).missing_seconds == 0
    assert passes.see(SILENT, times=4, every=300).missing_seconds >= 600


def test_a_record_is_steady_once_it_stayed_the_same_for_some_seconds(passes: Passes) -> None:
    """Two passes may follow each other at once."""
    assert not passes.see(FAILED, times=3, every=0.001).record_stable
    assert passes.see(FAILED, times=2, every=5).record_stable
    assert not passes.see(SILENT, every=5).record_stable
    assert not passes.see(FAILED, every=5).record_stable
