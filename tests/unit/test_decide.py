"""The decision table of the daemon, row by row."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from hpc_agent.domain import actions as due
from hpc_agent.domain.attempt import Attempt, attempt_for, parse_job_name
from hpc_agent.domain.decide import decide
from hpc_agent.domain.ids import AttemptId, JobId, QueueId, TaskId
from hpc_agent.domain.job import (
    UNCONFIRMED_LIMIT_S,
    ExitEvidence,
    JobRecord,
    JobState,
    LiveJob,
    UnclearAnswer,
    unconfirmed_record,
)
from hpc_agent.domain.job_phase import SubmissionState, SubmissionView
from hpc_agent.domain.outcome import classify_exit, classify_missing_job
from hpc_agent.domain.phase import Phase, phase_of
from hpc_agent.domain.queue import QueueEntry
from hpc_agent.domain.snapshot import (
    AttemptPolicy,
    AttemptSnapshot,
    ClaimView,
    ExitView,
    RunOwner,
)
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.schedulers.slurm.wait_reasons import meaning, readable

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TASK = TaskId("a" * 32)
ATTEMPT = Attempt(TASK, AttemptId("01234567"))
ENTRY = QueueEntry(TASK, "2026-01-01T00:00:00")
RULES = AttemptPolicy()
JOB = JobId("7")


def job(
    state: JobState = JobState.PENDING, number: str = "7", *, reason: str = "Resources", restarts: int = 0
) -> LiveJob:
    meant = meaning(readable(reason), JobId(number))
    return LiveJob(
        JobId(number), ATTEMPT.job_name, state, state.value, reason=readable(reason), restarts=restarts, waits=meant
    )


def record(state: JobState) -> JobRecord:
    return JobRecord(JOB, state, state.value, exit_code=1, nodes="n1")


def ended(state: JobState) -> tuple[JobRecord]:
    return (record(state),)


ACCEPTED = SubmissionView(SubmissionState.ACCEPTED, NOW - timedelta(hours=1), JOB)
FRESH_DOUBT = SubmissionView(SubmissionState.UNCERTAIN, NOW - timedelta(seconds=5))
OLD_DOUBT = SubmissionView(SubmissionState.UNCERTAIN, NOW - timedelta(minutes=5))
WON = ClaimView(True, JOB, user_process_started=True)
HARMLESS = ClaimView(True, JOB)
INTENT = ClaimView(False, JOB)
REFUSING = ClaimView(True, None)
GAVE_UP = ExitView(False, reason="taken back", gave_up=True)
PUT_BACK = ExitView(True, again=True)
SIGNALLED = ExitView(False, TerminationCause.CANCELLED, "the job was cancelled")
USED_UP = RULES.max_restarts
HELD = job(reason="launch failed requeued held", restarts=1)
HOPELESS = job(reason="DependencyNeverSatisfied")

waiting = AttemptSnapshot(ATTEMPT, entry=ENTRY)
running = AttemptSnapshot(
    ATTEMPT, submitted=ACCEPTED, claimed=WON, status=TaskStatus.IN_PROGRESS, jobs=(job(JobState.RUNNING),)
)
requeued = replace(running, jobs=(job(JobState.REQUEUED, reason="job requeued in held state", restarts=1),))
gone = replace(running, jobs=(), missing_seconds=30)
failed_for_good = replace(gone, records=ended(JobState.FAILED), record_stable=True)
not_launched = replace(failed_for_good, ended=ExitView(False, TerminationCause.NOT_LAUNCHED))
intended = AttemptSnapshot(ATTEMPT, submitted=ACCEPTED, jobs=(job(),), claimed=INTENT, status=TaskStatus.QUEUED)


def kinds(snapshot: AttemptSnapshot) -> list[str]:
    return [type(action).__name__ for action in decide(snapshot, NOW, RULES)]


SAID_TO_RUN = replace(gone, records=ended(JobState.RUNNING), missing_seconds=3000)
SILENT = replace(waiting, submitted=ACCEPTED, records=(unconfirmed_record(JOB),), missing_seconds=3000)
A_DAY = UNCONFIRMED_LIMIT_S + 1

ROWS: list[tuple[AttemptSnapshot, list[str]]] = [
    # in queue, no job
    (waiting, ["SubmitJob"]),
    (replace(waiting, submitted=FRESH_DOUBT), ["FindByName"]),
    (replace(waiting, submitted=OLD_DOUBT), ["FindByName"]),
    (replace(waiting, submitted=ACCEPTED, missing_seconds=30), []),
    (replace(waiting, submitted=ACCEPTED, missing_seconds=3000), ["SubmitJob"]),
    (replace(waiting, submitted=ACCEPTED, records=ended(JobState.FAILED)), ["SubmitJob"]),
    (replace(waiting, submitted=replace(ACCEPTED, submit_count=3), records=ended(JobState.FAILED)), ["RejectTask"]),
    (replace(waiting, submitted=ACCEPTED, records=ended(JobState.CANCELLED)), ["RejectTask"]),
    (replace(waiting, submitted=ACCEPTED, records=ended(JobState.NODE_FAIL)), []),
    (replace(waiting, submitted=ACCEPTED, records=ended(JobState.NODE_FAIL), record_stable=True), ["SubmitJob"]),
    (
        replace(waiting, submitted=ACCEPTED, records=ended(JobState.FAILED), claimed=INTENT),
        ["DropClaim", "SubmitJob"],
    ),
    # … but the entry was seen before a job took it
    (
        replace(waiting, submitted=ACCEPTED, claimed=WON, ended=ExitView(False), records=ended(JobState.COMPLETED)),
        [],
    ),
    # in queue, job there
    (replace(waiting, submitted=ACCEPTED, jobs=(job(),)), ["SetStatusMessage"]),
    (replace(waiting, submitted=ACCEPTED, jobs=(job(JobState.RUNNING),)), []),
    (replace(waiting, submitted=FRESH_DOUBT, jobs=(job(),)), ["AdoptJob", "SetStatusMessage"]),
    # off the queue, unclaimed
    (AttemptSnapshot(ATTEMPT, submitted=ACCEPTED, jobs=(job(),)), ["CancelJob"]),
    (AttemptSnapshot(ATTEMPT, submitted=ACCEPTED, jobs=(job(JobState.RUNNING),)), []),
    (AttemptSnapshot(ATTEMPT, submitted=ACCEPTED), []),
    (AttemptSnapshot(ATTEMPT, submitted=ACCEPTED, missing_seconds=90), ["MarkDone"]),
    (AttemptSnapshot(ATTEMPT, submitted=FRESH_DOUBT, missing_seconds=90), []),
    (AttemptSnapshot(ATTEMPT, submitted=OLD_DOUBT, missing_seconds=90), ["MarkDone"]),
    # off the queue, and a job of ours may have taken it
    (intended, []),
    (replace(intended, status=TaskStatus.UNKNOWN), []),
    (replace(intended, status=TaskStatus.IN_PROGRESS, run_owner=RunOwner.OURS), []),
    (replace(intended, status=TaskStatus.IN_PROGRESS), ["CancelJob"]),
    (replace(intended, status=TaskStatus.STOPPED), ["CancelJob"]),
    (replace(intended, jobs=(HOPELESS,)), ["CancelJob"]),
    (replace(intended, jobs=(HELD,)), ["CancelJob"]),
    (replace(intended, jobs=(job(JobState.RUNNING),), status=TaskStatus.STOPPED), []),
    # off the queue, refused by a daemon
    (
        AttemptSnapshot(ATTEMPT, jobs=(HOPELESS,), claimed=ClaimView(False, None), status=TaskStatus.QUEUED),
        ["CancelJob"],
    ),
    (
        AttemptSnapshot(ATTEMPT, claimed=ClaimView(False, None), status=TaskStatus.QUEUED, missing_seconds=90),
        ["Requeue"],
    ),
    (
        AttemptSnapshot(ATTEMPT, jobs=(job(),), claimed=REFUSING, ended=ExitView(True), status=TaskStatus.FAILED),
        ["CancelJob"],
    ),
    (
        AttemptSnapshot(ATTEMPT, claimed=REFUSING, ended=ExitView(False), status=TaskStatus.QUEUED),
        ["PublishExitReport"],
    ),
    (AttemptSnapshot(ATTEMPT, claimed=REFUSING, ended=ExitView(True), status=TaskStatus.FAILED), ["MarkDone"]),
    (AttemptSnapshot(ATTEMPT, claimed=REFUSING, status=TaskStatus.QUEUED, missing_seconds=90), ["Requeue"]),
    # in queue, and the job does not start
    (replace(waiting, submitted=ACCEPTED, jobs=(HELD,)), ["ReleaseJob", "SetStatusMessage"]),
    (replace(waiting, submitted=ACCEPTED, jobs=(replace(HELD, restarts=3),)), ["RejectTask"]),
    (replace(waiting, submitted=ACCEPTED, jobs=(HOPELESS,)), ["RejectTask"]),
    # claimed, job there
    (running, []),
    (replace(running, jobs=(job(JobState.PENDING),)), ["SetStatusMessage"]),
    (replace(running, jobs=(job(JobState.PENDING),), abort_requested=True), ["SetFinalStatus"]),
    (replace(running, jobs=(HELD,)), ["ReleaseJob", "SetStatusMessage"]),
    (replace(running, jobs=(replace(HELD, restarts=4),)), ["SetFinalStatus"]),
    (
        replace(running, jobs=(replace(HELD, restarts=4),), claimed=replace(WON, restart_count=2)),
        ["ReleaseJob", "SetStatusMessage"],
    ),
    (replace(running, jobs=(replace(HELD, restarts=5),), claimed=replace(WON, restart_count=2)), ["SetFinalStatus"]),
    (replace(running, jobs=(HOPELESS,)), ["SetFinalStatus"]),
    (replace(running, jobs=(job(JobState.RUNNING), job(number="8"))), ["CancelJob"]),
    (replace(running, status=TaskStatus.COMPLETED, final_seconds=600), []),
    (replace(running, status=TaskStatus.COMPLETED, jobs=(job(JobState.REQUEUED),)), ["CancelJob"]),
    # … started again by the scheduler, though its run came to its end
    (replace(requeued, ended=ExitView(False)), ["PublishExitReport", "CancelJob"]),
    (replace(requeued, ended=ExitView(True)), ["CancelJob"]),
    (replace(requeued, ended=ExitView(False, again=True)), ["CancelJob"]),
    (replace(requeued, ended=GAVE_UP), ["CancelJob"]),
    (replace(requeued, ended=ExitView(False, TerminationCause.REQUEUED)), ["SetStatusMessage"]),
    (replace(running, ended=ExitView(False)), []),
    (replace(running, status=TaskStatus.STOPPED), []),
    (replace(running, status=TaskStatus.STOPPED, final_seconds=600), ["CancelJob"]),
    (replace(running, status=TaskStatus.STOPPED, final_seconds=600, ended=ExitView(True)), []),
    (replace(running, status=TaskStatus.QUEUED, final_seconds=600), []),
    (replace(running, status=TaskStatus.UNKNOWN, final_seconds=600), []),
    (replace(running, status=TaskStatus.STOPPED, jobs=(job(JobState.REQUEUED),)), ["CancelJob"]),
    (replace(running, run_owner=RunOwner.ANOTHERS, final_seconds=600), ["CancelJob"]),
    (replace(running, run_owner=RunOwner.ANOTHERS, jobs=(job(JobState.PENDING),)), ["CancelJob"]),
    (replace(running, jobs=(job(JobState.UNKNOWN),)), []),
    # claimed, job gone
    (replace(gone, ended=ExitView(False)), ["PublishExitReport"]),
    (replace(gone, ended=ExitView(True)), ["MarkDone"]),
    (gone, []),
    (replace(gone, missing_seconds=3000), ["SetFinalStatus"]),
    (replace(gone, missing_seconds=3000, claimed=HARMLESS), ["Requeue"]),
    (replace(gone, records=ended(JobState.TIMEOUT)), ["SetFinalStatus"]),
    (replace(gone, records=ended(JobState.FAILED)), ["SetFinalStatus"]),
    (replace(gone, records=ended(JobState.FAILED), claimed=HARMLESS), ["Requeue"]),
    (replace(gone, records=ended(JobState.FAILED), claimed=HARMLESS, requeues_used=USED_UP), ["SetFinalStatus"]),
    (replace(gone, records=ended(JobState.CANCELLED), claimed=HARMLESS), ["SetFinalStatus"]),
    (replace(gone, records=ended(JobState.REVOKED)), []),
    (replace(gone, records=ended(JobState.REVOKED), missing_seconds=3000), ["SetFinalStatus"]),
    (replace(gone, records=ended(JobState.RUNNING)), []),
    (replace(gone, records=ended(JobState.NODE_FAIL)), []),
    (replace(gone, records=ended(JobState.NODE_FAIL), record_stable=True), ["Requeue"]),
    (
        replace(gone, records=ended(JobState.NODE_FAIL), record_stable=True, requeues_used=USED_UP),
        ["SetFinalStatus"],
    ),
    (
        replace(gone, records=ended(JobState.NODE_FAIL), record_stable=True, abort_requested=True),
        ["SetFinalStatus"],
    ),
    (replace(gone, records=ended(JobState.PREEMPTED), record_stable=True), ["Requeue"]),
    (replace(gone, records=ended(JobState.REVOKED), record_stable=True), []),
    (replace(gone, records=ended(JobState.FAILED), restarts_seen=1), ["Requeue"]),
    (replace(gone, records=ended(JobState.CANCELLED), restarts_seen=1), ["SetFinalStatus"]),
    (replace(gone, ended=SIGNALLED), []),
    (replace(gone, ended=SIGNALLED, records=ended(JobState.CANCELLED)), []),
    (replace(gone, ended=SIGNALLED, records=ended(JobState.CANCELLED), record_stable=True), ["SetFinalStatus"]),
    (replace(gone, ended=SIGNALLED, missing_seconds=3000), ["SetFinalStatus"]),
    (replace(failed_for_good, ended=ExitView(False, TerminationCause.PREEMPTED)), ["Requeue"]),
    (not_launched, ["Requeue"]),
    (replace(not_launched, requeues_used=USED_UP), ["SetFinalStatus"]),
    (replace(gone, ended=ExitView(False, again=True)), ["Requeue"]),
    (replace(gone, ended=ExitView(False, again=True), abort_requested=True), ["SetFinalStatus"]),
    (replace(gone, ended=ExitView(False, again=True), status=TaskStatus.QUEUED), ["Requeue"]),
    (replace(gone, ended=PUT_BACK, status=TaskStatus.QUEUED), []),
    (replace(gone, ended=replace(PUT_BACK, unsent=True), status=TaskStatus.QUEUED), ["MarkDone"]),
    (replace(gone, ended=PUT_BACK, status=TaskStatus.STOPPED), ["MarkDone"]),
    (replace(gone, ended=PUT_BACK, run_owner=RunOwner.ANOTHERS), ["MarkDone"]),
    (replace(gone, ended=PUT_BACK, run_owner=RunOwner.OURS, missing_seconds=3000), []),
    (replace(gone, ended=PUT_BACK, run_owner=RunOwner.OURS, dequeued_seconds=90), ["SetFinalStatus"]),
    (replace(gone, ended=PUT_BACK, run_owner=RunOwner.OURS, abort_requested=True), ["SetFinalStatus"]),
    (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS), []),
    (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, missing_seconds=90), ["Requeue"]),
    (replace(gone, status=TaskStatus.QUEUED, missing_seconds=90), ["MarkDone"]),
    (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, ended=ExitView(False)), ["PublishExitReport"]),
    (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, ended=GAVE_UP, missing_seconds=90), ["Requeue"]),
    (
        replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, missing_seconds=90, requeues_used=USED_UP),
        ["SetFinalStatus"],
    ),
    (replace(gone, claimed=INTENT, status=TaskStatus.QUEUED, missing_seconds=90), ["Requeue"]),
    (replace(gone, claimed=INTENT, records=ended(JobState.FAILED)), ["MarkDone"]),
    (replace(gone, claimed=INTENT, records=ended(JobState.FAILED), run_owner=RunOwner.OURS), ["Requeue"]),
    (replace(gone, ended=GAVE_UP, records=ended(JobState.FAILED), record_stable=True), ["PublishExitReport"]),
    (
        replace(gone, ended=GAVE_UP, records=ended(JobState.FAILED), record_stable=True, run_owner=RunOwner.OURS),
        ["Requeue"],
    ),
    (replace(gone, status=TaskStatus.STOPPED), ["MarkDone"]),
    (replace(gone, status=TaskStatus.UNKNOWN), []),
    (replace(gone, run_owner=RunOwner.ANOTHERS, records=ended(JobState.FAILED)), ["MarkDone"]),
    (replace(gone, status=None), ["MarkDone"]),
    (replace(gone, claimed=ClaimView(True, None), missing_seconds=3000), []),
    # a source has the job for alive, or gives no answer: nothing rests on that, but for a day of it
    (SAID_TO_RUN, []),
    (replace(SAID_TO_RUN, claimed=HARMLESS), []),
    (replace(SAID_TO_RUN, ended=SIGNALLED), []),
    (replace(SAID_TO_RUN, claimed=HARMLESS, status=TaskStatus.QUEUED), []),
    (replace(SAID_TO_RUN, claimed=None), []),
    (SILENT, []),
    (replace(SILENT, submitted=replace(ACCEPTED, submit_count=3)), []),
    (replace(SAID_TO_RUN, unconfirmed_seconds=A_DAY), ["SetFinalStatus"]),
    (replace(SAID_TO_RUN, unconfirmed_seconds=A_DAY, missing_seconds=30), []),
    (replace(SAID_TO_RUN, unconfirmed_seconds=A_DAY, claimed=HARMLESS), ["Requeue"]),
    (replace(SAID_TO_RUN, unconfirmed_seconds=A_DAY, claimed=HARMLESS, status=TaskStatus.QUEUED), ["Requeue"]),
    (replace(SAID_TO_RUN, unconfirmed_seconds=A_DAY, claimed=None), ["MarkDone"]),
    (replace(SILENT, unconfirmed_seconds=A_DAY), ["SubmitJob"]),
    (replace(SILENT, unconfirmed_seconds=A_DAY, submitted=replace(ACCEPTED, submit_count=3)), ["RejectTask"]),
    # … but what the job's executor, or the server, says does not wait for it
    (replace(SAID_TO_RUN, ended=ExitView(False)), ["PublishExitReport"]),
    (replace(SAID_TO_RUN, ended=ExitView(True)), ["MarkDone"]),
    (replace(SAID_TO_RUN, ended=ExitView(False, again=True)), ["Requeue"]),
    (replace(SAID_TO_RUN, status=TaskStatus.STOPPED), ["MarkDone"]),
]


@pytest.mark.parametrize(("snapshot", "expected"), ROWS)
def test_each_row_of_the_table(snapshot: AttemptSnapshot, expected: list[str]) -> None:
    assert kinds(snapshot) == expected


def test_the_rows_visit_each_phase() -> None:
    assert {phase_of(snapshot) for snapshot, _ in ROWS} == set(Phase)


def test_a_lost_job_that_accounting_shows_as_running_is_called_lost_and_not_failed() -> None:
    [action] = decide(replace(SAID_TO_RUN, unconfirmed_seconds=A_DAY), NOW, RULES)
    assert isinstance(action, due.SetFinalStatus)
    assert action.reason.startswith("job 7 is lost: for 50 minutes")


def test_a_job_that_may_have_started_is_cancelled_only_while_it_waits() -> None:
    [action] = decide(AttemptSnapshot(ATTEMPT, submitted=ACCEPTED, jobs=(job(),)), NOW, RULES)
    assert isinstance(action, due.CancelJob)
    assert action.only_pending


def test_an_uncertain_submission_is_repeated_only_after_it_was_looked_for_long_enough() -> None:
    [young] = decide(replace(waiting, submitted=FRESH_DOUBT), NOW, RULES)
    [old] = decide(replace(waiting, submitted=OLD_DOUBT), NOW, RULES)
    assert isinstance(young, due.FindByName)
    assert isinstance(old, due.FindByName)
    assert (young.give_up, old.give_up, old.number) == (False, True, 2)


FAILED = replace(FRESH_DOUBT, message="no hours left", doubt=UnclearAnswer.UNKNOWN_ERROR)


@pytest.mark.parametrize(
    ("looked", "age", "gives_up"),
    [(None, 5, False), (None, 5000, False), (5, 5000, False), (59, 60, False), (61, 70, True)],
)
def test_an_error_in_unknown_words_is_a_refusal_after_two_looks_some_time_apart(
    looked: float | None, age: float, gives_up: bool
) -> None:
    """However long ago the submission was: a pass of cron's may come late, and no look was one look."""
    looked_at = None if looked is None else NOW - timedelta(seconds=looked)
    submitted = replace(FAILED, at=NOW - timedelta(seconds=age), looked_at=looked_at)
    [said, action] = decide(replace(waiting, submitted=submitted), NOW, RULES)
    assert isinstance(action, due.FindByName)
    assert (action.give_up, action.refusal) == (gives_up, "the scheduler refused the job: no hours left")
    assert isinstance(said, due.SetStatusMessage)
    assert "no hours left" in said.message
    assert "no hours left" in said.console


@pytest.mark.parametrize("doubt", [UnclearAnswer.NO_ANSWER, UnclearAnswer.NO_JOB_ID])
def test_any_other_unclear_answer_is_shown_and_the_task_is_submitted_again(doubt: UnclearAnswer) -> None:
    submitted = replace(OLD_DOUBT, message="Socket timed out", doubt=doubt)
    [said, action] = decide(replace(waiting, submitted=submitted), NOW, RULES)
    assert action == due.FindByName(2, give_up=True)
    assert isinstance(said, due.SetStatusMessage)
    assert "Socket timed out" in said.message


def test_a_job_that_shows_up_after_an_error_is_adopted() -> None:
    assert kinds(replace(waiting, submitted=FAILED, jobs=(job(),)))[0] == "AdoptJob"


def test_the_verdict_is_a_sentence_with_job_state_and_advice() -> None:
    [action] = decide(replace(gone, records=ended(JobState.TIMEOUT)), NOW, RULES)
    assert isinstance(action, due.SetFinalStatus)
    assert action.status is TaskStatus.FAILED
    assert action.reason.startswith("the time limit was reached")
    assert "job 7" in action.reason
    assert "user property time_limit" in action.reason


def test_a_time_limit_is_not_the_end_where_the_queue_says_so() -> None:
    snapshot = replace(gone, records=ended(JobState.TIMEOUT))
    requeue = replace(RULES, requeue_on_time_limit=True)
    [action] = decide(snapshot, NOW, requeue)
    assert isinstance(action, due.Requeue)
    assert action.restart
    [action] = decide(replace(snapshot, requeues_used=USED_UP), NOW, requeue)
    assert isinstance(action, due.SetFinalStatus)
    assert "restarted 3 times before (max_restarts)" in action.reason


def verdict(snapshot: AttemptSnapshot) -> due.SetFinalStatus | due.Requeue:
    [action] = decide(snapshot, NOW, RULES)
    assert isinstance(action, (due.SetFinalStatus, due.Requeue))
    return action


OLD_PROLOG = ExitEvidence(not_launched=True, last_words="Error running slurm prolog: 256")
OLD_KILL = ExitEvidence(out_of_memory=True)


@pytest.mark.parametrize("evidence", [OLD_PROLOG, OLD_KILL])
def test_what_an_earlier_start_left_behind_explains_no_end_that_the_scheduler_explains(evidence: ExitEvidence) -> None:
    cancelled = replace(gone, records=ended(JobState.CANCELLED), ended=SIGNALLED, record_stable=True, evidence=evidence)
    by_hand = verdict(cancelled)
    assert isinstance(by_hand, due.SetFinalStatus)
    assert (by_hand.status, "was cancelled" in by_hand.reason) == (TaskStatus.STOPPED, True)
    preempted = verdict(replace(gone, records=ended(JobState.PREEMPTED), record_stable=True, evidence=evidence))
    assert isinstance(preempted, due.Requeue)
    assert "was preempted" in preempted.why
    [refused] = decide(
        replace(waiting, submitted=ACCEPTED, records=ended(JobState.CANCELLED), evidence=evidence), NOW, RULES
    )
    assert isinstance(refused, due.RejectTask)
    assert "was cancelled" in refused.reason


def test_a_job_whose_agent_has_the_task_was_launched() -> None:
    action = verdict(replace(gone, records=ended(JobState.FAILED), evidence=OLD_PROLOG))
    assert isinstance(action, due.SetFinalStatus)
    assert "left no report" in action.reason


def test_a_job_that_was_to_start_again_and_is_gone_is_not_an_abort() -> None:
    requeued = replace(gone, ended=ExitView(False, TerminationCause.REQUEUED, "requeued, waiting"), record_stable=True)
    again = verdict(replace(requeued, records=ended(JobState.FAILED)))
    assert isinstance(again, due.Requeue)
    assert "before the agent started" in again.why
    nowhere = verdict(replace(requeued, missing_seconds=3000))
    assert isinstance(nowhere, due.SetFinalStatus)
    assert (nowhere.status, "is lost" in nowhere.reason) == (TaskStatus.FAILED, True)
    by_hand = verdict(replace(requeued, records=ended(JobState.CANCELLED)))
    assert isinstance(by_hand, due.SetFinalStatus)
    assert by_hand.status is TaskStatus.STOPPED


def test_put_back_after_a_death_before_the_start_is_counted() -> None:
    taken = replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, missing_seconds=90)
    assert verdict(taken) == due.Requeue("taken off the queue by a job that ended before it started", restart=True)
    [cancelled] = ended(JobState.CANCELLED)
    # By the daemon itself, while the job waited to start again.
    assert isinstance(verdict(replace(taken, records=(replace(cancelled, nodes=""),))), due.Requeue)
    by_hand = verdict(replace(taken, records=(replace(cancelled, nodes="n1"),)))
    assert isinstance(by_hand, due.SetFinalStatus)
    assert by_hand.status is TaskStatus.STOPPED
    assert "was cancelled" in by_hand.reason and "before the task started; enqueue" in by_hand.reason
    refusal = verdict(replace(taken, claimed=REFUSING))
    assert isinstance(refusal, due.Requeue)
    assert not refusal.restart
    assert "refused" in refusal.why


@pytest.mark.parametrize(
    ("restarts", "words"),
    [(1, "restarted once before"), (2, "restarted twice before"), (4, "restarted 4 times before")],
)
def test_how_often_it_was_restarted_is_said_in_words(restarts: int, words: str) -> None:
    snapshot = replace(gone, records=ended(JobState.NODE_FAIL), record_stable=True, requeues_used=restarts)
    [action] = decide(snapshot, NOW, replace(RULES, max_restarts=restarts))
    assert isinstance(action, due.SetFinalStatus)
    assert words in action.reason


def test_what_is_posted_before_its_console_is_followed_by_it() -> None:
    assert decide(replace(gone, ended=ExitView(True, unsent=True)), NOW, RULES) == (
        due.MarkDone("its exit report is published", ship=True),
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("AssocGrpCPUMinutesLimit", "budget"),
        ("AssocGrpGRESMinutes", "budget"),
        ("AssocGrpBillingMinutes", "budget"),
        ("QOSGrpCPUMinutesLimit", "budget"),
        ("AssocGrpWallLimit", "budget"),
        ("QOSGrpWallLimit", "budget"),
        ("AssocGrpCPURunMinutesLimit", "it starts when others"),
        ("AssocGrpGRES", "it starts when others"),
        ("QOSMaxJobsPerUserLimit", "it starts when others"),
        ("AssocMaxJobsLimit", "it starts when others"),
        ("QOSMaxGRESPerJob", "ask for less"),
        ("AssocMaxCpuMinutesPerJobLimit", "ask for less"),
        ("QOSMaxWallDurationPerJobLimit", "ask for less"),
    ],
)
def test_a_limit_is_reported_as_what_it_is(reason: str, words: str) -> None:
    [action] = decide(replace(waiting, submitted=ACCEPTED, jobs=(job(reason=reason),)), NOW, RULES)
    assert isinstance(action, due.SetStatusMessage)
    assert words in action.message


def test_a_node_is_blamed_for_a_quick_death_only() -> None:
    def node(seconds: float, nodes: str = "n1") -> str:
        times = {"started": NOW, "ended": NOW + timedelta(seconds=seconds)}
        end = replace(record(JobState.NODE_FAIL), nodes=nodes, **times)
        [action] = decide(replace(gone, records=(end,), record_stable=True), NOW, RULES)
        assert isinstance(action, due.Requeue)
        return action.node

    assert [node(50), node(5000), node(50, "n[1-2]")] == ["n1", "", ""]


def test_the_job_name_tells_the_attempt_again() -> None:
    attempt = attempt_for("cluster", QueueId("q" * 32), TASK, ENTRY.added)
    assert parse_job_name(attempt.job_name) == attempt
    assert len(attempt.job_name) == 54
    assert parse_job_name("another-users-job") is None
    assert attempt_for("cluster", QueueId("q" * 32), TASK, "later") != attempt


def test_a_job_whose_output_file_could_not_be_opened_never_started() -> None:
    unopened = JobRecord(JOB, JobState.FAILED, "FAILED", signal=53, nodes="n1")
    outcome = classify_exit(unopened)
    assert "could not be started on n1: its output file in the run directory could not be opened" in outcome.reason
    ran = replace(unopened, started=NOW, ended=NOW + timedelta(minutes=1))
    assert "signal 53" in classify_exit(ran).reason


def test_a_task_whose_ranks_were_not_launched_too_often_has_failed() -> None:
    why = "Slurm could not start the ranks on n2: Job credential expired"
    outcome = classify_missing_job(replace(gone, ended=ExitView(False, TerminationCause.NOT_LAUNCHED, why)))
    assert (outcome.status, outcome.reason) == (TaskStatus.FAILED, why)
