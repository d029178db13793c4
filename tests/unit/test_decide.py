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
from hpc_agent.domain.job import DOUBT_S, Doubt, JobRecord, JobState, LiveJob, unanswered
from hpc_agent.domain.phase import Phase, phase_of
from hpc_agent.domain.queue import QueueEntry
from hpc_agent.domain.sight import Claimed, Ended, Handed, Hold, Rules, Sight, Submitted
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.verdict import Clues, explain

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
GAVE_UP = Ended(False, reason="taken back", gave_up=True)
TOLD = Ended(False, Cause.CANCELLED, "the job was cancelled")
USED_UP = RULES.max_restarts
HELD = job(reason="launch failed requeued held", restarts=1)
HOPELESS = job(reason="DependencyNeverSatisfied")

waiting = Sight(ATTEMPT, entry=ENTRY)
running = Sight(ATTEMPT, submitted=ACCEPTED, claimed=WON, status=TaskStatus.IN_PROGRESS, jobs=(job(JobState.RUNNING),))
requeued = replace(running, jobs=(job(JobState.REQUEUED, reason="job requeued in held state", restarts=1),))
gone = replace(running, jobs=(), gone_for=30)
intended = Sight(ATTEMPT, submitted=ACCEPTED, jobs=(job(),), claimed=INTENT, status=TaskStatus.QUEUED)


def kinds(sight: Sight) -> list[str]:
    return [type(action).__name__ for action in decide(sight, NOW, RULES)]


SAID_TO_RUN = replace(gone, record=record(JobState.RUNNING), gone_for=3000)
SILENT = replace(waiting, submitted=ACCEPTED, record=unanswered(JOB), gone_for=3000)
A_DAY = DOUBT_S + 1

ROWS: list[tuple[Sight, list[str]]] = [
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
    (Sight(ATTEMPT, submitted=ACCEPTED), []),
    (Sight(ATTEMPT, submitted=ACCEPTED, gone_for=90), ["Close"]),
    (Sight(ATTEMPT, submitted=FRESH_DOUBT, gone_for=90), []),
    (Sight(ATTEMPT, submitted=OLD_DOUBT, gone_for=90), ["Close"]),
    # off the queue, and a job of ours may have taken it
    (intended, []),
    (replace(intended, status=TaskStatus.UNKNOWN), []),
    (replace(intended, status=TaskStatus.IN_PROGRESS, hold=Hold.OURS), []),
    (replace(intended, status=TaskStatus.IN_PROGRESS), ["Cancel"]),
    (replace(intended, status=TaskStatus.STOPPED), ["Cancel"]),
    (replace(intended, jobs=(HOPELESS,)), ["Cancel"]),
    (replace(intended, jobs=(HELD,)), ["Cancel"]),
    (replace(intended, jobs=(job(JobState.RUNNING),), status=TaskStatus.STOPPED), []),
    # off the queue, refused by a daemon
    (Sight(ATTEMPT, jobs=(HOPELESS,), claimed=Claimed(False, None), status=TaskStatus.QUEUED), ["Cancel"]),
    (Sight(ATTEMPT, claimed=Claimed(False, None), status=TaskStatus.QUEUED, gone_for=90), ["PutBack"]),
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
    (replace(running, jobs=(replace(HELD, restarts=4),), claimed=replace(WON, start=2)), ["Release", "Say"]),
    (replace(running, jobs=(replace(HELD, restarts=5),), claimed=replace(WON, start=2)), ["Settle"]),
    (replace(running, jobs=(HOPELESS,)), ["Settle"]),
    (replace(running, jobs=(job(JobState.RUNNING), job(number="8"))), ["Cancel"]),
    (replace(running, status=TaskStatus.COMPLETED, final_for=600), []),
    (replace(running, status=TaskStatus.COMPLETED, jobs=(job(JobState.REQUEUED),)), ["Cancel"]),
    # … started again by the scheduler, though its run came to its end
    (replace(requeued, ended=Ended(False)), ["Finish", "Cancel"]),
    (replace(requeued, ended=Ended(True)), ["Cancel"]),
    (replace(requeued, ended=Ended(False, again=True)), ["Cancel"]),
    (replace(requeued, ended=GAVE_UP), ["Cancel"]),
    (replace(requeued, ended=Ended(False, Cause.REQUEUED)), ["Say"]),
    (replace(running, ended=Ended(False)), []),
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
    (replace(gone, record=record(JobState.REVOKED)), []),
    (replace(gone, record=record(JobState.REVOKED), gone_for=3000), ["Settle"]),
    (replace(gone, record=record(JobState.RUNNING)), []),
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
    (replace(gone, ended=Ended(False, again=True), abort_requested=True), ["Settle"]),
    (replace(gone, ended=Ended(False, again=True), status=TaskStatus.QUEUED), ["PutBack"]),
    (replace(gone, ended=Ended(True, again=True), status=TaskStatus.QUEUED), ["Close"]),
    (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS), []),
    (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, gone_for=90), ["PutBack"]),
    (replace(gone, status=TaskStatus.QUEUED, gone_for=90), ["Close"]),
    (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, ended=Ended(False)), ["Finish"]),
    (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, ended=GAVE_UP, gone_for=90), ["PutBack"]),
    (replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, gone_for=90, restarts=USED_UP), ["Settle"]),
    (replace(gone, claimed=INTENT, status=TaskStatus.QUEUED, gone_for=90), ["PutBack"]),
    (replace(gone, claimed=INTENT, record=record(JobState.FAILED)), ["Close"]),
    (replace(gone, claimed=INTENT, record=record(JobState.FAILED), hold=Hold.OURS), ["PutBack"]),
    (replace(gone, ended=GAVE_UP, record=record(JobState.FAILED), steady=True), ["Finish"]),
    (replace(gone, ended=GAVE_UP, record=record(JobState.FAILED), steady=True, hold=Hold.OURS), ["PutBack"]),
    (replace(gone, status=TaskStatus.STOPPED), ["Close"]),
    (replace(gone, status=TaskStatus.UNKNOWN), []),
    (replace(gone, hold=Hold.ANOTHERS, record=record(JobState.FAILED)), ["Close"]),
    (replace(gone, status=None), ["Close"]),
    (replace(gone, claimed=Claimed(True, None), gone_for=3000), []),
    # a source has the job for alive, or gives no answer: nothing rests on that, but for a day of it
    (SAID_TO_RUN, []),
    (replace(SAID_TO_RUN, claimed=HARMLESS), []),
    (replace(SAID_TO_RUN, ended=TOLD), []),
    (replace(SAID_TO_RUN, claimed=HARMLESS, status=TaskStatus.QUEUED), []),
    (replace(SAID_TO_RUN, claimed=None), []),
    (SILENT, []),
    (replace(SILENT, submitted=replace(ACCEPTED, tries=3)), []),
    (replace(SAID_TO_RUN, doubted_for=A_DAY), ["Settle"]),
    (replace(SAID_TO_RUN, doubted_for=A_DAY, gone_for=30), []),
    (replace(SAID_TO_RUN, doubted_for=A_DAY, claimed=HARMLESS), ["PutBack"]),
    (replace(SAID_TO_RUN, doubted_for=A_DAY, claimed=HARMLESS, status=TaskStatus.QUEUED), ["PutBack"]),
    (replace(SAID_TO_RUN, doubted_for=A_DAY, claimed=None), ["Close"]),
    (replace(SILENT, doubted_for=A_DAY), ["Submit"]),
    (replace(SILENT, doubted_for=A_DAY, submitted=replace(ACCEPTED, tries=3)), ["Refuse"]),
    # … but what the job's executor, or the server, says does not wait for it
    (replace(SAID_TO_RUN, ended=Ended(False)), ["Finish"]),
    (replace(SAID_TO_RUN, ended=Ended(True)), ["Close"]),
    (replace(SAID_TO_RUN, ended=Ended(False, again=True)), ["PutBack"]),
    (replace(SAID_TO_RUN, status=TaskStatus.STOPPED), ["Close"]),
]


@pytest.mark.parametrize(("sight", "expected"), ROWS)
def test_each_row_of_the_table(sight: Sight, expected: list[str]) -> None:
    assert kinds(sight) == expected


def test_the_rows_visit_each_phase() -> None:
    assert {phase_of(sight) for sight, _ in ROWS} == set(Phase)


def test_a_lost_job_that_accounting_shows_as_running_is_called_lost_and_not_failed() -> None:
    [action] = decide(replace(SAID_TO_RUN, doubted_for=A_DAY), NOW, RULES)
    assert isinstance(action, due.Settle)
    assert action.reason.startswith("job 7 is lost: for 50 minutes")


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


FAILED = replace(FRESH_DOUBT, message="no hours left", doubt=Doubt.UNKNOWN_ERROR)


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
    assert isinstance(action, due.LookUp)
    assert (action.give_up, action.refusal) == (gives_up, "the scheduler refused the job: no hours left")
    assert isinstance(said, due.Say)
    assert "no hours left" in said.message
    assert "no hours left" in said.console


@pytest.mark.parametrize("doubt", [Doubt.NO_ANSWER, Doubt.NO_JOB_ID])
def test_any_other_unclear_answer_is_shown_and_the_task_is_submitted_again(doubt: Doubt) -> None:
    submitted = replace(OLD_DOUBT, message="Socket timed out", doubt=doubt)
    [said, action] = decide(replace(waiting, submitted=submitted), NOW, RULES)
    assert action == due.LookUp(2, give_up=True)
    assert isinstance(said, due.Say)
    assert "Socket timed out" in said.message


def test_a_job_that_shows_up_after_an_error_is_adopted() -> None:
    assert kinds(replace(waiting, submitted=FAILED, jobs=(job(),)))[0] == "Adopt"


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


def verdict(sight: Sight) -> due.Settle | due.PutBack:
    [action] = decide(sight, NOW, RULES)
    assert isinstance(action, (due.Settle, due.PutBack))
    return action


OLD_PROLOG = Clues(not_launched=True, last_words="Error running slurm prolog: 256")
OLD_KILL = Clues(out_of_memory=True)


@pytest.mark.parametrize("clues", [OLD_PROLOG, OLD_KILL])
def test_what_an_earlier_start_left_behind_explains_no_end_that_the_scheduler_explains(clues: Clues) -> None:
    cancelled = replace(gone, record=record(JobState.CANCELLED), ended=TOLD, steady=True, clues=clues)
    by_hand = verdict(cancelled)
    assert isinstance(by_hand, due.Settle)
    assert (by_hand.status, "was cancelled" in by_hand.reason) == (TaskStatus.STOPPED, True)
    preempted = verdict(replace(gone, record=record(JobState.PREEMPTED), steady=True, clues=clues))
    assert isinstance(preempted, due.PutBack)
    assert "was preempted" in preempted.why
    [refused] = decide(replace(waiting, submitted=ACCEPTED, record=record(JobState.CANCELLED), clues=clues), NOW, RULES)
    assert isinstance(refused, due.Refuse)
    assert "was cancelled" in refused.reason


def test_a_job_whose_agent_has_the_task_was_launched() -> None:
    action = verdict(replace(gone, record=record(JobState.FAILED), clues=OLD_PROLOG))
    assert isinstance(action, due.Settle)
    assert "left no report" in action.reason


def test_a_job_that_was_to_start_again_and_is_gone_is_no_abort() -> None:
    told = replace(gone, ended=Ended(False, Cause.REQUEUED, "requeued, waiting"), steady=True)
    again = verdict(replace(told, record=record(JobState.FAILED)))
    assert isinstance(again, due.PutBack)
    assert "before its agent came to life" in again.why
    nowhere = verdict(replace(told, gone_for=3000))
    assert isinstance(nowhere, due.Settle)
    assert (nowhere.status, "is lost" in nowhere.reason) == (TaskStatus.FAILED, True)
    by_hand = verdict(replace(told, record=record(JobState.CANCELLED)))
    assert isinstance(by_hand, due.Settle)
    assert by_hand.status is TaskStatus.STOPPED


def test_put_back_after_a_death_before_the_start_is_counted() -> None:
    taken = replace(gone, status=TaskStatus.QUEUED, claimed=HARMLESS, gone_for=90)
    assert verdict(taken) == due.PutBack("taken off the queue by a job that ended before it started", restart=True)
    refusal = verdict(replace(taken, claimed=REFUSING))
    assert isinstance(refusal, due.PutBack)
    assert not refusal.restart
    assert "refused" in refusal.why


@pytest.mark.parametrize(
    ("restarts", "words"),
    [(1, "restarted once before"), (2, "restarted twice before"), (4, "restarted 4 times before")],
)
def test_how_often_it_was_restarted_is_said_in_words(restarts: int, words: str) -> None:
    sight = replace(gone, record=record(JobState.NODE_FAIL), steady=True, restarts=restarts)
    [action] = decide(sight, NOW, replace(RULES, max_restarts=restarts))
    assert isinstance(action, due.Settle)
    assert words in action.reason


def test_what_is_posted_before_its_console_is_followed_by_it() -> None:
    assert decide(replace(gone, ended=Ended(True, unsent=True)), NOW, RULES) == (
        due.Close("its last word is posted", ship=True),
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
def test_a_limit_is_told_for_what_it_is(reason: str, words: str) -> None:
    [action] = decide(replace(waiting, submitted=ACCEPTED, jobs=(job(reason=reason),)), NOW, RULES)
    assert isinstance(action, due.Say)
    assert words in action.message


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


def test_a_job_whose_output_file_could_not_be_opened_never_started() -> None:
    unopened = JobRecord(JOB, JobState.FAILED, "FAILED", signal=53, nodes="n1")
    told = explain(unopened)
    assert "could not be started on n1: its output file in the run directory could not be opened" in told.reason
    ran = replace(unopened, started=NOW, ended=NOW + timedelta(minutes=1))
    assert "signal 53" in explain(ran).reason
