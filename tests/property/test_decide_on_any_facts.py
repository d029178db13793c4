"""What is never due, whatever facts come together: also such as no run of the program would ever show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from any_snapshot import NOW, any_snapshot, doubtful_records, final_records, no_records, rules, snapshots_of
from exploring import assert_enough, examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from hpc_agent.domain import actions as due
from hpc_agent.domain.decide import decide
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S, JobState
from hpc_agent.domain.job_phase import SubmissionState
from hpc_agent.domain.phase import Phase, phase_of
from hpc_agent.domain.snapshot import AttemptPolicy, AttemptSnapshot
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.wait_reason import explain_wait

Check = Callable[[AttemptSnapshot, AttemptPolicy, due.Action], None]
EXAMPLES = 160
WAYS = (
    due.SubmitJob,
    due.FindByName,
    due.RejectTask,
    due.SetFinalStatus,
    due.PublishExitReport,
    due.Requeue,
    due.MarkDone,
)


def _always(_snapshot: AttemptSnapshot, _action: due.Action) -> bool:
    return True


def for_each(
    *kinds: type,
    at: tuple[Phase, ...],
    where: Callable[[AttemptSnapshot, due.Action], bool] = _always,
    number: int = EXAMPLES,
    **facts: SearchStrategy[Any],
) -> Callable[[Check], Callable[[], None]]:
    """Make a test of a check on every action of these kinds that is due for any snapshot, where ``where`` holds.

    ``at`` and ``facts`` tell where such actions are due: two of three examples are there, the others anywhere. The test
    fails too where one of the kinds was checked fewer than 20 times.
    """
    snapshots = st.sampled_from([True, True, False]).flatmap(
        lambda there: snapshots_of(*at, **facts) if there else snapshots_of(*Phase) | any_snapshot
    )

    def decorate(check: Check) -> Callable[[], None]:
        def test() -> None:
            checked: Counter[str] = Counter()

            def example(snapshot: AttemptSnapshot, rules: AttemptPolicy) -> None:
                for action in decide(snapshot, NOW, rules):
                    if isinstance(action, kinds) and where(snapshot, action):
                        checked[type(action).__name__] += 1
                        check(snapshot, rules, action)

            # Examples differ, and failures are kept, by name.
            example.__name__ = example.__qualname__ = check.__name__
            examples(number)(given(snapshot=snapshots, rules=rules)(example))()
            assert_enough(checked, *(kind.__name__ for kind in kinds))

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def is_resubmission(snapshot: AttemptSnapshot, _action: due.Action) -> bool:
    return snapshot.submitted is not None


def is_of_claiming_job(snapshot: AttemptSnapshot, action: due.Action) -> bool:
    won = snapshot.claimed is not None and snapshot.claimed.won
    return won and snapshot.owner is not None and isinstance(action, due.CancelJob) and action.job == snapshot.owner.id


def cuts_short(_snapshot: AttemptSnapshot, action: due.Action) -> bool:
    return isinstance(action, due.CancelJob) and not action.only_pending


def counts_as_restart(_snapshot: AttemptSnapshot, action: due.Action) -> bool:
    return isinstance(action, due.Requeue) and action.restart


def has_no_job(snapshot: AttemptSnapshot, _action: due.Action) -> bool:
    return not snapshot.jobs


def is_unconfirmed(snapshot: AttemptSnapshot, _action: due.Action) -> bool:
    return any(not record.state.is_final for record in snapshot.records) and not snapshot.jobs


@for_each(due.SubmitJob, due.FindByName, at=(Phase.QUEUED, Phase.UNCONFIRMED))
def test_no_second_job_next_to_a_live_one_or_for_a_claimed_task(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert snapshot.entry is not None
    assert not snapshot.jobs
    assert not (snapshot.claimed and snapshot.claimed.won)


@for_each(due.SubmitJob, where=is_resubmission, at=(Phase.UNCLAIMED_END,), number=600)
def test_uncertain_submission_is_never_repeated_blindly(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert snapshot.submitted is not None
    assert snapshot.submitted.state is SubmissionState.ACCEPTED
    assert snapshot.record is not None or snapshot.missing_seconds > rules.lost_after


@for_each(due.SubmitJob, due.RejectTask, where=has_no_job, at=(Phase.UNCLAIMED_END,), number=400)
def test_the_intent_of_a_job_that_is_gone_is_dropped_first(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    dropped = decide(snapshot, NOW, rules)[0] == due.DropClaim()
    assert dropped is (snapshot.submitted is not None and snapshot.claimed is not None)


@for_each(due.CancelJob, at=(Phase.DEQUEUED, Phase.DUPLICATE, Phase.ENDED_REQUEUED))
def test_only_own_jobs_are_cancelled(snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action) -> None:
    assert isinstance(action, due.CancelJob)
    assert action.job in {job.id for job in snapshot.jobs}


@for_each(due.CancelJob, where=is_of_claiming_job, at=(Phase.WITHDRAWN, Phase.ENDED_REQUEUED, Phase.REQUEUED))
def test_a_job_that_runs_its_task_is_not_cancelled(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert snapshot.is_withdrawn or (snapshot.ended is not None and snapshot.ended.cause is None)


@for_each(
    due.CancelJob,
    where=cuts_short,
    at=(Phase.WITHDRAWN,),
    number=500,
    final_seconds=st.sampled_from([60, 61, 61]),
    ended=st.none(),
)
def test_a_started_job_is_cancelled_only_long_after_its_task_was_taken_back(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert is_of_claiming_job(snapshot, action)
    assert snapshot.final_seconds > rules.stop_grace
    assert snapshot.status is not TaskStatus.COMPLETED  # its script may have said so, and goes on


@for_each(
    due.SetFinalStatus,
    due.RejectTask,
    at=(Phase.UNREPORTED, Phase.UNREPORTED, Phase.UNCLAIMED_END, Phase.PENDING),
    number=500,
)
def test_silence_gives_no_final_status(snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action) -> None:
    """But for a very long one of every source."""
    certain = snapshot.record is not None and snapshot.record.state.is_final
    never_starts = any(explain_wait(job).hopeless or explain_wait(job).not_launched for job in snapshot.jobs)
    asked = isinstance(action, due.SetFinalStatus) and snapshot.abort_requested
    taken_off = phase_of(snapshot) is Phase.TAKEN_OFF  # it never started: no run of it can be cut off
    assert certain or never_starts or asked or taken_off or snapshot.missing_seconds > rules.lost_after


DOUBTED = (Phase.UNCLAIMED_END, Phase.UNREPORTED, Phase.TAKEN_OFF, Phase.NEVER_CLAIMED)


@for_each(
    *(due.SetFinalStatus, due.RejectTask, due.Requeue, due.SubmitJob, due.MarkDone),
    where=is_unconfirmed,
    at=(*DOUBTED, Phase.UNCLAIMED_END, Phase.NEVER_CLAIMED),
    number=2000,  # which examples there are depends on the modules that are loaded: half as many were 15 once
    records=doubtful_records,
    unconfirmed_seconds=st.sampled_from([UNCONFIRMED_LIMIT_S, UNCONFIRMED_LIMIT_S + 1]),
    missing_seconds=st.just(1e6),
)
def test_a_source_that_has_the_job_for_alive_or_is_silent_keeps_every_verdict_off(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    """And another job too, for a day. What the task's server, user or executor says needs no scheduler."""
    assert phase_of(snapshot) not in DOUBTED or snapshot.unconfirmed_seconds > UNCONFIRMED_LIMIT_S


@for_each(due.SetFinalStatus, at=(Phase.UNREPORTED, Phase.TAKEN_OFF, Phase.REQUEUED), number=300)
def test_a_task_that_is_not_ours_gets_no_verdict(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert snapshot.claimed is not None
    record = snapshot.record
    cancelled = record is not None and record.state is JobState.CANCELLED and bool(record.nodes)
    taken_off = (
        snapshot.status is TaskStatus.QUEUED
        and not snapshot.claimed.user_process_started
        and (cancelled or snapshot.requeues_used >= rules.max_restarts)
    )
    assert taken_off or snapshot.runs


@for_each(due.RejectTask, at=(Phase.UNCLAIMED_END, Phase.PENDING), number=300)
def test_only_a_task_in_its_queue_is_refused(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert snapshot.entry is not None
    assert not (snapshot.claimed and snapshot.claimed.won)


@for_each(due.Requeue, at=(Phase.UNREPORTED, Phase.TAKEN_OFF, Phase.RETURNING))
def test_a_task_is_put_back_only_when_no_job_can_still_run_it(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert snapshot.entry is None
    assert not snapshot.jobs
    assert snapshot.status is TaskStatus.QUEUED or snapshot.runs or (snapshot.ended and snapshot.ended.again)
    assert not (snapshot.ended and snapshot.ended.posted)
    assert not (snapshot.runs and snapshot.abort_requested)


@for_each(
    due.Requeue,
    where=counts_as_restart,
    at=(Phase.UNREPORTED, Phase.TAKEN_OFF),
    number=300,
    records=no_records | final_records,
    missing_seconds=st.just(601.0),
)
def test_a_task_is_restarted_only_so_often(snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action) -> None:
    assert snapshot.requeues_used < rules.max_restarts


ACTIVE = (Phase.PENDING, Phase.UNCLAIMED_END, Phase.UNREPORTED, Phase.TAKEN_OFF)


@for_each(
    *WAYS,
    at=(
        *ACTIVE,
        *ACTIVE,
        *(Phase.UNREPORTED,) * 3,
        *(Phase.UNCLAIMED_END, Phase.PENDING) * 2,
        Phase.QUEUED,
        Phase.UNCONFIRMED,
        Phase.UNPOSTED,
    ),
    number=1000,
)
def test_one_direction_at_a_time(snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action) -> None:
    """A task is handed on, given up, put back or closed: never two of these in one pass."""
    assert sum(isinstance(other, WAYS) for other in decide(snapshot, NOW, rules)) == 1


@for_each(due.MarkDone, at=(Phase.NEVER_CLAIMED, Phase.POSTED, Phase.OVER))
def test_what_is_closed_has_neither_job_nor_entry(
    snapshot: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert not snapshot.jobs
    assert snapshot.entry is None


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.name.lower())
def test_the_facts_of_each_phase_are_recognised(phase: Phase) -> None:
    visited: Counter[str] = Counter()

    @examples(40)
    @given(snapshot=snapshots_of(phase), rules=rules)
    def example(snapshot: AttemptSnapshot, rules: AttemptPolicy) -> None:
        visited[phase.name] += 1
        assert phase_of(snapshot) is phase
        assert isinstance(decide(snapshot, NOW, rules), tuple)

    example()
    assert_enough(visited, phase.name)
