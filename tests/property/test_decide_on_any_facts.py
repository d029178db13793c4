"""What is never due, whatever facts come together: also such as no run of the program would ever show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from any_sight import NOW, any_sight, doubtful_records, final_records, rules, sights_of
from exploring import assert_enough, examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from hpc_agent.domain import actions as due
from hpc_agent.domain.decide import decide
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S
from hpc_agent.domain.phase import Phase, phase_of
from hpc_agent.domain.snapshot import AttemptPolicy, AttemptSnapshot, SubmissionState
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


def _always(_sight: AttemptSnapshot, _action: due.Action) -> bool:
    return True


def for_each(
    *kinds: type,
    at: tuple[Phase, ...],
    where: Callable[[AttemptSnapshot, due.Action], bool] = _always,
    number: int = EXAMPLES,
    **facts: SearchStrategy[Any],
) -> Callable[[Check], Callable[[], None]]:
    """Make a test of a check on every action of these kinds that is due for any sight, where ``where`` holds.

    ``at`` and ``facts`` tell where such actions are due: two of three examples are there, the others anywhere. The test
    fails too where one of the kinds was checked fewer than 20 times.
    """
    sights = st.sampled_from([True, True, False]).flatmap(
        lambda there: sights_of(*at, **facts) if there else sights_of(*Phase) | any_sight
    )

    def decorate(check: Check) -> Callable[[], None]:
        def test() -> None:
            checked: Counter[str] = Counter()

            def example(sight: AttemptSnapshot, rules: AttemptPolicy) -> None:
                for action in decide(sight, NOW, rules):
                    if isinstance(action, kinds) and where(sight, action):
                        checked[type(action).__name__] += 1
                        check(sight, rules, action)

            # Examples differ, and failures are kept, by name.
            example.__name__ = example.__qualname__ = check.__name__
            examples(number)(given(sight=sights, rules=rules)(example))()
            assert_enough(checked, *(kind.__name__ for kind in kinds))

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def is_resubmission(sight: AttemptSnapshot, _action: due.Action) -> bool:
    return sight.submitted is not None


def is_of_claiming_job(sight: AttemptSnapshot, action: due.Action) -> bool:
    won = sight.claimed is not None and sight.claimed.won
    return won and sight.owner is not None and isinstance(action, due.CancelJob) and action.job == sight.owner.id


def cuts_short(_sight: AttemptSnapshot, action: due.Action) -> bool:
    return isinstance(action, due.CancelJob) and not action.only_pending


def counts_as_restart(_sight: AttemptSnapshot, action: due.Action) -> bool:
    return isinstance(action, due.Requeue) and action.restart


def has_no_job(sight: AttemptSnapshot, _action: due.Action) -> bool:
    return not sight.jobs


def is_in_doubt(sight: AttemptSnapshot, _action: due.Action) -> bool:
    return sight.is_in_doubt and not sight.jobs


@for_each(due.SubmitJob, due.FindByName, at=(Phase.QUEUED, Phase.UNCONFIRMED))
def test_no_second_job_beside_a_live_one_or_for_a_claimed_task(
    sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert sight.entry is not None
    assert not sight.jobs
    assert not (sight.claimed and sight.claimed.won)


@for_each(due.SubmitJob, where=is_resubmission, at=(Phase.UNCLAIMED_END,), number=600)
def test_uncertain_submission_is_never_repeated_blindly(
    sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert sight.submitted is not None
    assert sight.submitted.state is SubmissionState.ACCEPTED
    assert sight.record is not None or sight.missing_seconds > rules.lost_after


@for_each(due.SubmitJob, due.RejectTask, where=has_no_job, at=(Phase.UNCLAIMED_END,), number=400)
def test_the_intent_of_a_job_that_is_gone_is_dropped_first(
    sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    dropped = decide(sight, NOW, rules)[0] == due.DropClaim()
    assert dropped is (sight.submitted is not None and sight.claimed is not None)


@for_each(due.CancelJob, at=(Phase.DEQUEUED, Phase.DUPLICATE, Phase.ENDED_REQUEUED))
def test_only_own_jobs_are_cancelled(sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action) -> None:
    assert isinstance(action, due.CancelJob)
    assert action.job in {job.id for job in sight.jobs}


@for_each(due.CancelJob, where=is_of_claiming_job, at=(Phase.WITHDRAWN, Phase.ENDED_REQUEUED, Phase.REQUEUED))
def test_a_job_that_runs_its_task_is_not_cancelled(
    sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert sight.taken_back or (sight.ended is not None and sight.ended.cause is None)


@for_each(
    due.CancelJob,
    where=cuts_short,
    at=(Phase.WITHDRAWN,),
    number=500,
    final_seconds=st.sampled_from([60, 61, 61]),
    ended=st.none(),
)
def test_a_started_job_is_cancelled_only_long_after_its_task_was_taken_back(
    sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert is_of_claiming_job(sight, action)
    assert sight.final_seconds > rules.stop_grace
    assert sight.status is not TaskStatus.COMPLETED  # its script may have said so, and goes on


@for_each(
    due.SetFinalStatus,
    due.RejectTask,
    at=(Phase.UNREPORTED, Phase.UNREPORTED, Phase.UNCLAIMED_END, Phase.PENDING),
    number=500,
)
def test_silence_gives_no_final_status(sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action) -> None:
    """But for a very long one of every source."""
    certain = sight.record is not None and sight.record.state.is_final
    never_starts = any(explain_wait(job).hopeless or explain_wait(job).not_launched for job in sight.jobs)
    asked = isinstance(action, due.SetFinalStatus) and sight.abort_requested
    taken_off = phase_of(sight) is Phase.TAKEN_OFF  # it never started: no run of it can be cut off
    assert certain or never_starts or asked or taken_off or sight.missing_seconds > rules.lost_after


DOUBTED = (Phase.UNCLAIMED_END, Phase.UNREPORTED, Phase.TAKEN_OFF, Phase.NEVER_CLAIMED)


@for_each(
    *(due.SetFinalStatus, due.RejectTask, due.Requeue, due.SubmitJob, due.MarkDone),
    where=is_in_doubt,
    at=(*DOUBTED, Phase.UNCLAIMED_END),
    number=700,
    record=doubtful_records,
    unconfirmed_seconds=st.sampled_from([UNCONFIRMED_LIMIT_S, UNCONFIRMED_LIMIT_S + 1]),
    missing_seconds=st.just(1e6),
)
def test_a_source_that_has_the_job_for_alive_or_is_silent_keeps_every_verdict_off(
    sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    """And another job too, for a day. What the task's server, user or executor says needs no scheduler."""
    assert phase_of(sight) not in DOUBTED or sight.unconfirmed_seconds > rules.doubted_at_most


@for_each(due.SetFinalStatus, at=(Phase.UNREPORTED, Phase.TAKEN_OFF, Phase.REQUEUED), number=300)
def test_a_task_that_is_not_ours_gets_no_verdict(
    sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert sight.claimed is not None
    used_up = sight.status is TaskStatus.QUEUED and not sight.claimed.begun and sight.restarts >= rules.max_restarts
    assert used_up or sight.runs


@for_each(due.RejectTask, at=(Phase.UNCLAIMED_END, Phase.PENDING), number=300)
def test_only_a_task_in_its_queue_is_refused(sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action) -> None:
    assert sight.entry is not None
    assert not (sight.claimed and sight.claimed.won)


@for_each(due.Requeue, at=(Phase.UNREPORTED, Phase.TAKEN_OFF, Phase.RETURNING))
def test_a_task_is_put_back_only_when_no_job_can_still_run_it(
    sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert sight.entry is None
    assert not sight.jobs
    assert sight.status is TaskStatus.QUEUED or sight.runs or (sight.ended and sight.ended.again)
    assert not (sight.ended and sight.ended.posted)
    assert not (sight.runs and sight.abort_requested)


@for_each(
    due.Requeue,
    where=counts_as_restart,
    at=(Phase.UNREPORTED, Phase.TAKEN_OFF),
    number=300,
    record=st.none() | final_records,
    missing_seconds=st.just(601.0),
)
def test_a_task_is_restarted_only_so_often(sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action) -> None:
    assert sight.restarts < rules.max_restarts


ACTIVE = (Phase.PENDING, Phase.UNCLAIMED_END, Phase.UNREPORTED, Phase.TAKEN_OFF)


@for_each(
    *WAYS,
    at=(
        *ACTIVE,
        *ACTIVE,
        *(Phase.UNREPORTED,) * 3,
        Phase.UNCLAIMED_END,
        Phase.QUEUED,
        Phase.UNCONFIRMED,
        Phase.UNPOSTED,
    ),
    number=1000,
)
def test_one_direction_at_a_time(sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action) -> None:
    """A task is handed on, given up, put back or closed: never two of these in one pass."""
    assert sum(isinstance(other, WAYS) for other in decide(sight, NOW, rules)) == 1


@for_each(due.MarkDone, at=(Phase.NEVER_CLAIMED, Phase.POSTED, Phase.OVER))
def test_what_is_closed_has_neither_job_nor_entry(
    sight: AttemptSnapshot, rules: AttemptPolicy, action: due.Action
) -> None:
    assert not sight.jobs
    assert sight.entry is None


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.name.lower())
def test_the_facts_of_each_phase_are_recognised(phase: Phase) -> None:
    visited: Counter[str] = Counter()

    @examples(40)
    @given(sight=sights_of(phase), rules=rules)
    def example(sight: AttemptSnapshot, rules: AttemptPolicy) -> None:
        visited[phase.name] += 1
        assert phase_of(sight) is phase
        assert isinstance(decide(sight, NOW, rules), tuple)

    example()
    assert_enough(visited, phase.name)
