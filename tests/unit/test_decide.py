"""The decision table of the daemon, row by row."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from hpc_agent.domain import actions as due
from hpc_agent.domain.attempt import Attempt, attempt_for, parse_job_name
from hpc_agent.domain.decide import decide
from hpc_agent.domain.ending import Cause
from hpc_agent.domain.ids import AttemptId, JobId, QueueId, TaskId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.domain.queue import QueueEntry
from hpc_agent.domain.sight import Claimed, Ended, Handed, Hold, Rules, Sight, Submitted
from hpc_agent.domain.status import TaskStatus

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TASK = TaskId("a" * 32)
ATTEMPT = Attempt(TASK, AttemptId("01234567"))
ENTRY = QueueEntry(TASK, "2026-01-01T00:00:00")
RULES = Rules()
JOB = JobId("7")


def job(
    state: JobState = JobState.PENDING, number: str = "7", *, reason: str = "Resources", restarts: int = 0
) -> LiveJob:
    return LiveJob(JobId(number), ATTEMPT.job_name, state, state.value, reason=reason, restarts=restarts)


def record(state: JobState) -> JobRecord:
    return JobRecord(JOB, state, state.value, exit_code=1, nodes="n1")


ACCEPTED = Submitted(Handed.ACCEPTED, NOW - timedelta(hours=1), JOB)
FRESH_DOUBT = Submitted(Handed.UNCERTAIN, NOW - timedelta(seconds=5))
OLD_DOUBT = Submitted(Handed.UNCERTAIN, NOW - timedelta(minutes=5))
WON = Claimed(True, JOB, begun=True)
HARMLESS = Claimed(True, JOB)
INTENT = Claimed(False, JOB)
REFUSING = Claimed(True, None)
TOLD = Ended(False, Cause.CANCELLED, "the job was cancelled")
USED_UP = RULES.max_restarts
HELD = job(reason="launch failed requeued held", restarts=1)
HOPELESS = job(reason="DependencyNeverSatisfied")

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
        # off the queue, refused by a daemon
        (Sight(ATTEMPT, jobs=(job(),), claimed=REFUSING, ended=Ended(True), status=TaskStatus.FAILED), ["Cancel"]),
        (Sight(ATTEMPT, claimed=REFUSING, ended=Ended(False), status=TaskStatus.QUEUED), ["Finish"]),
        (Sight(ATTEMPT, claimed=REFUSING, ended=Ended(True), status=TaskStatus.FAILED), ["Close"]),
        (Sight(ATTEMPT, claimed=REFUSING, status=TaskStatus.QUEUED, gone_for=90), ["PutBack"]),
        # in queue, and the job does not start
        (replace(waiting, submitted=ACCEPTED, jobs=(HELD,)), ["Release", "Say"]),
        (replace(waiting, submitted=ACCEPTED, jobs=(replace(HELD, restarts=3),)), ["Refuse"]),
        (replace(waiting, submitted=ACCEPTED, jobs=(HOPELESS,)), ["Refuse"]),
        # claimed, job there
        (running, []),
        (replace(running, jobs=(job(JobState.PENDING),)), ["Say"]),
        (replace(running, jobs=(job(JobState.PENDING),), abort_requested=True), ["Settle"]),
        (replace(running, jobs=(HELD,)), ["Release", "Say"]),
        (replace(running, jobs=(replace(HELD, restarts=4),)), ["Settle"]),
        (replace(running, jobs=(HOPELESS,)), ["Settle"]),
        (replace(running, jobs=(job(JobState.RUNNING), job(number="8"))), ["Cancel"]),
        (replace(running, status=TaskStatus.STOPPED), []),
        (replace(running, status=TaskStatus.STOPPED, final_for=600), ["Cancel"]),
        (replace(running, status=TaskStatus.STOPPED, final_for=600, ended=Ended(True)), []),
        (replace(running, status=TaskStatus.QUEUED, final_for=600), []),
        (replace(running, status=TaskStatus.UNKNOWN, final_for=600), []),
        (replace(running, status=TaskStatus.STOPPED, jobs=(job(JobState.REQUEUED),)), ["Cancel"]),
        (replace(running, hold=Hold.ANOTHERS, final_for=600), ["Cancel"]),
        (replace(running, hold=Hold.ANOTHERS, jobs=(job(JobState.PENDING),)), ["Cancel"]),
        (replace(running, jobs=(job(JobState.UNKNOWN),)), []),
        # claimed, job gone
        (replace(gone, ended=Ended(False)), ["Finish"]),
        (replace(gone, ended=Ended(True)), ["Close"]),
        (gone, []),
        (replace(gone, gone_for=3000), ["Settle"]),
        (replace(gone, gone_for=3000, claimed=HARMLESS), ["PutBack"]),
        (replace(gone, record=record(JobState.TIMEOUT)), ["Settle"]),
        (replace(gone, record=record(JobState.FAILED)), ["Settle"]),
        (replace(gone, record=record(JobState.FAILED), claimed=HARMLESS), ["PutBack"]),
        (replace(gone, record=record(JobState.FAILED), claimed=HARMLESS, restarts=USED_UP), ["Settle"]),
        (replace(gone, record=record(JobState.CANCELLED), claimed=HARMLESS), ["Settle"]),
        (replace(gone, record=record(JobState.NODE_FAIL)), []),
        (replace(gone, record=record(JobState.NODE_FAIL), steady=True), ["PutBack"]),
        (replace(gone, record=record(JobState.NODE_FAIL), steady=True, restarts=USED_UP), ["Settle"]),
        (replace(gone, record=record(JobState.NODE_FAIL), steady=True, abort_requested=True), ["Settle"]),
        (replace(gone, record=record(JobState.PREEMPTED), steady=True), ["PutBack"]),
        (replace(gone, record=record(JobState.REVOKED), steady=True), []),
        (replace(gone, record=record(JobState.FAILED), starts_seen=1), ["PutBack"]),
        (replace(gone, record=record(JobState.CANCELLED), starts_seen=1), ["Settle"]),
        (replace(gone, ended=TOLD), []),
        (replace(gone, ended=TOLD, record=record(JobState.CANCELLED)), []),
        (replace(gone, ended=TOLD, record=record(JobState.CANCELLED), steady=True), ["Settle"]),
        (replace(gone, ended=TOLD, gone_for=3000), ["Settle"]),
        (replace(gone, ended=Ended(False, Cause.PREEMPTED), record=record(JobState.FAILED), steady=True), ["PutBack"]),
        (replace(gone, ended=Ended(False, again=True)), ["PutBack"]),
        (replace(gone, ended=Ended(False, again=True), status=TaskStatus.QUEUED), ["PutBack"]),
        (replace(gone, ended=Ended(True, again=True), status=TaskStatus.QUEUED), ["Close"]),
        (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS), []),
        (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, gone_for=90), ["PutBack"]),
        (replace(gone, status=TaskStatus.QUEUED, gone_for=90), ["Close"]),
        (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, ended=Ended(False), gone_for=90), ["PutBack"]),
        (replace(gone, claimed=INTENT, status=TaskStatus.QUEUED, gone_for=90), ["PutBack"]),
        (replace(gone, status=TaskStatus.STOPPED), ["Close"]),
        (replace(gone, status=TaskStatus.UNKNOWN), []),
        (replace(gone, hold=Hold.ANOTHERS, record=record(JobState.FAILED)), ["Close"]),
        (replace(gone, status=None), ["Close"]),
        (replace(gone, claimed=Claimed(True, None), gone_for=3000), []),
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
    assert action.reason.startswith("the time limit was reached")
    assert "job 7" in action.reason
    assert "user property time_limit" in action.reason


def test_a_time_limit_is_not_the_end_where_the_queue_says_so() -> None:
    sight = replace(gone, record=record(JobState.TIMEOUT))
    requeue = replace(RULES, requeue_on_time_limit=True)
    [action] = decide(sight, NOW, requeue)
    assert isinstance(action, due.PutBack)
    assert action.restart
    [action] = decide(replace(sight, restarts=USED_UP), NOW, requeue)
    assert isinstance(action, due.Settle)
    assert "restarted 3 times before (max_restarts)" in action.reason


def test_a_node_is_blamed_for_a_quick_death_only() -> None:
    def node(seconds: float, nodes: str = "n1") -> str:
        times = {"started": NOW, "ended": NOW + timedelta(seconds=seconds)}
        end = replace(record(JobState.NODE_FAIL), nodes=nodes, **times)  # type: ignore[arg-type]
        [action] = decide(replace(gone, record=end, steady=True), NOW, RULES)
        assert isinstance(action, due.PutBack)
        return action.node

    assert [node(50), node(5000), node(50, "n[1-2]")] == ["n1", "", ""]


def test_the_job_name_tells_the_attempt_again() -> None:
    attempt = attempt_for("cluster", QueueId("q" * 32), TASK, ENTRY.added)
    assert parse_job_name(attempt.job_name) == attempt
    assert len(attempt.job_name) == 54
    assert parse_job_name("somebody-elses-job") is None
    assert attempt_for("cluster", QueueId("q" * 32), TASK, "later") != attempt
