"""The decision table of the daemon, row by row."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from hpc_agent.domain import decide as due
from hpc_agent.domain.attempt import Attempt, attempt_for, parse_job_name
from hpc_agent.domain.decide import Claimed, Ended, Handed, Rules, Sight, Submitted, decide
from hpc_agent.domain.ids import AttemptId, JobId, QueueId, TaskId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.domain.queue import QueueEntry
from hpc_agent.domain.status import TaskStatus

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TASK = TaskId("a" * 32)
ATTEMPT = Attempt(TASK, AttemptId("01234567"))
ENTRY = QueueEntry(TASK, "2026-01-01T00:00:00")
RULES = Rules()
JOB = JobId("7")


def job(state: JobState = JobState.PENDING, number: str = "7") -> LiveJob:
    return LiveJob(JobId(number), ATTEMPT.job_name, state, state.value, reason="Resources")


def record(state: JobState) -> JobRecord:
    return JobRecord(JOB, state, state.value, exit_code=1)


ACCEPTED = Submitted(Handed.ACCEPTED, NOW - timedelta(hours=1), JOB)
FRESH_DOUBT = Submitted(Handed.UNCERTAIN, NOW - timedelta(seconds=5))
OLD_DOUBT = Submitted(Handed.UNCERTAIN, NOW - timedelta(minutes=5))
WON = Claimed(True, NOW, JOB)
INTENT = Claimed(False, NOW, JOB)

waiting = Sight(ATTEMPT, entry=ENTRY)
running = Sight(ATTEMPT, submitted=ACCEPTED, claimed=WON, status=TaskStatus.IN_PROGRESS, jobs=(job(JobState.RUNNING),))
gone = replace(running, jobs=(), gone_for=30)


def kinds(sight: Sight) -> list[str]:
    return [type(action).__name__ for action in decide(sight, NOW, RULES)]


@pytest.mark.parametrize(
    ("sight", "expected"),
    [
        # in queue, no job
        (waiting, ["Submit"]),
        (replace(waiting, submitted=FRESH_DOUBT), ["LookUp"]),
        (replace(waiting, submitted=OLD_DOUBT), ["LookUp"]),
        (replace(waiting, submitted=ACCEPTED, gone_for=30), []),
        (replace(waiting, submitted=ACCEPTED, gone_for=3000), ["Submit"]),
        (replace(waiting, submitted=ACCEPTED, record=record(JobState.FAILED)), ["Submit"]),
        (replace(waiting, submitted=replace(ACCEPTED, tries=3), record=record(JobState.FAILED)), ["Refuse"]),
        (replace(waiting, submitted=ACCEPTED, record=record(JobState.CANCELLED)), ["Refuse"]),
        (replace(waiting, submitted=ACCEPTED, record=record(JobState.NODE_FAIL)), []),
        (replace(waiting, submitted=ACCEPTED, record=record(JobState.NODE_FAIL), steady=True), ["Submit"]),
        (replace(waiting, submitted=ACCEPTED, record=record(JobState.FAILED), claimed=INTENT), ["DropClaim", "Submit"]),
        # … but the entry was seen before a job took it
        (replace(waiting, submitted=ACCEPTED, claimed=WON, ended=Ended(False), record=record(JobState.COMPLETED)), []),
        # in queue, job there
        (replace(waiting, submitted=ACCEPTED, jobs=(job(),)), ["Say"]),
        (replace(waiting, submitted=ACCEPTED, jobs=(job(JobState.RUNNING),)), []),
        (replace(waiting, submitted=FRESH_DOUBT, jobs=(job(),)), ["Adopt", "Say"]),
        # off the queue, unclaimed
        (Sight(ATTEMPT, submitted=ACCEPTED, jobs=(job(),)), ["Cancel"]),
        (Sight(ATTEMPT, submitted=ACCEPTED, jobs=(job(JobState.RUNNING),)), []),
        (Sight(ATTEMPT, submitted=ACCEPTED, jobs=(job(),), claimed=INTENT), []),
        (Sight(ATTEMPT, submitted=ACCEPTED), ["Close"]),
        (Sight(ATTEMPT, submitted=FRESH_DOUBT), []),
        (Sight(ATTEMPT, submitted=OLD_DOUBT), ["Close"]),
        # claimed, job there
        (running, []),
        (replace(running, jobs=(job(JobState.PENDING),)), ["Say"]),
        (replace(running, jobs=(job(JobState.RUNNING), job(number="8"))), ["Cancel"]),
        (replace(running, status=TaskStatus.STOPPED), []),
        (replace(running, status=TaskStatus.STOPPED, final_for=600), ["Cancel"]),
        (replace(running, status=TaskStatus.STOPPED, final_for=600, ended=Ended(False)), []),
        (replace(running, status=TaskStatus.STOPPED, jobs=(job(JobState.REQUEUED),)), ["Cancel"]),
        (replace(running, jobs=(job(JobState.UNKNOWN),)), []),
        (replace(running, jobs=(job(JobState.PENDING),), abort_requested=True), ["Cancel", "Settle"]),
        # claimed, job gone
        (replace(gone, ended=Ended(False)), ["Finish"]),
        (replace(gone, ended=Ended(True)), ["Close"]),
        (gone, []),
        (replace(gone, gone_for=3000), ["Settle"]),
        (replace(gone, record=record(JobState.TIMEOUT)), ["Settle"]),
        (replace(gone, record=record(JobState.NODE_FAIL)), []),
        (replace(gone, record=record(JobState.NODE_FAIL), steady=True), ["Settle"]),
        (replace(gone, ended=Ended(False, interrupted=True)), []),
        (replace(gone, ended=Ended(False, interrupted=True), record=record(JobState.CANCELLED)), []),
        (
            replace(gone, ended=Ended(False, interrupted=True), record=record(JobState.CANCELLED), steady=True),
            ["Settle"],
        ),
        (replace(gone, ended=Ended(False, interrupted=True), gone_for=3000), ["Finish"]),
        (replace(gone, status=TaskStatus.QUEUED), []),
        (replace(gone, status=TaskStatus.QUEUED, ended=Ended(False)), ["PutBack"]),
        (replace(gone, status=TaskStatus.QUEUED, gone_for=90), ["PutBack"]),
        (replace(gone, claimed=INTENT, status=TaskStatus.QUEUED, gone_for=90), ["PutBack"]),
        (replace(gone, status=TaskStatus.STOPPED), ["Close"]),
        (replace(gone, status=None), ["Close"]),
        (replace(gone, claimed=Claimed(True, NOW, None), gone_for=3000), []),
    ],
)
def test_each_row_of_the_table(sight: Sight, expected: list[str]) -> None:
    assert kinds(sight) == expected


def test_a_job_that_may_have_started_is_cancelled_only_while_it_waits() -> None:
    [action] = decide(Sight(ATTEMPT, submitted=ACCEPTED, jobs=(job(),)), NOW, RULES)
    assert isinstance(action, due.Cancel)
    assert action.only_pending


def test_an_uncertain_submission_is_repeated_only_after_it_was_looked_for_long_enough() -> None:
    [young] = decide(replace(waiting, submitted=FRESH_DOUBT), NOW, RULES)
    [old] = decide(replace(waiting, submitted=OLD_DOUBT), NOW, RULES)
    assert isinstance(young, due.LookUp)
    assert isinstance(old, due.LookUp)
    assert (young.give_up, old.give_up, old.number) == (False, True, 2)


def test_the_verdict_is_a_sentence_with_job_state_and_advice() -> None:
    [action] = decide(replace(gone, record=record(JobState.TIMEOUT)), NOW, RULES)
    assert isinstance(action, due.Settle)
    assert action.status is TaskStatus.FAILED
    assert "Slurm job 7 TIMEOUT" in action.reason
    assert "time_limit" in action.reason


def test_the_job_name_tells_the_attempt_again() -> None:
    attempt = attempt_for("cluster", QueueId("q" * 32), TASK, ENTRY.added)
    assert parse_job_name(attempt.job_name) == attempt
    assert len(attempt.job_name) == 54
    assert parse_job_name("somebody-elses-job") is None
    assert attempt_for("cluster", QueueId("q" * 32), TASK, "later") != attempt
