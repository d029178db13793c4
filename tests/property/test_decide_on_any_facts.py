"""What is never due, whatever facts come together: also such as no run of the program would ever show."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

from hypothesis import event, given, settings
from hypothesis import strategies as st

from hpc_agent.domain import actions as due
from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.decide import decide
from hpc_agent.domain.ending import Cause
from hpc_agent.domain.ids import JobId, QueueId, TaskId
from hpc_agent.domain.job import Doubt, JobRecord, JobState, LiveJob
from hpc_agent.domain.queue import QueueEntry
from hpc_agent.domain.sight import Claimed, Ended, Handed, Hold, Rules, Sight, Submitted
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.verdict import Clues
from hpc_agent.domain.waiting import explain_wait

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TASK = TaskId("a" * 32)
ATTEMPT = attempt_for("cluster", QueueId("q"), TASK, "1")
REASONS = ["", "None", "Priority", "JobHeldUser", "DependencyNeverSatisfied", "launch failed requeued held", "odd word"]
LIVE = [
    JobState.PENDING,
    JobState.REQUEUED,
    JobState.RUNNING,
    JobState.SUSPENDED,
    JobState.COMPLETING,
    JobState.UNKNOWN,
]

ids = st.sampled_from([JobId(str(number)) for number in range(1, 4)])
times = st.integers(-1000, 1000).map(lambda seconds: NOW + timedelta(seconds=seconds))
seconds = st.sampled_from([0.0, 59.0, 61.0, 599.0, 601.0, 1e6])
small = st.integers(0, 5)
live_jobs = st.builds(
    LiveJob,
    id=ids,
    name=st.just(ATTEMPT.job_name),
    state=st.sampled_from(LIVE),
    raw_state=st.just("WORD"),
    reason=st.sampled_from(REASONS),
    restarts=small,
)
records = st.builds(
    JobRecord,
    id=ids,
    state=st.sampled_from(JobState),
    raw_state=st.just("WORD"),
    exit_code=st.sampled_from([0, 1]),
    submitted=st.none() | times,
    started=st.none() | times,
    ended=st.none() | times,
    nodes=st.sampled_from(["", "n1", "n[1-2]"]),
)


def reports(posted: bool, what: str | Cause, unsent: bool) -> Ended:
    """``what``: a cause, or ``again``, ``none``, or nothing for a report that names a status."""
    cause = what if isinstance(what, Cause) else None
    return Ended(posted, cause, again=what == "again", gave_up=what == "none", unsent=posted and unsent)


sights = st.builds(
    Sight,
    attempt=st.just(ATTEMPT),
    entry=st.sampled_from([None, QueueEntry(TASK, "1")]),
    submitted=st.none()
    | st.builds(
        Submitted,
        st.sampled_from(Handed),
        times,
        st.none() | ids,
        st.integers(1, 5),
        doubt=st.none() | st.sampled_from(Doubt),
        looked_at=st.none() | times,
    ),
    jobs=st.lists(live_jobs, max_size=2, unique_by=lambda job: job.id).map(tuple),
    claimed=st.none() | st.builds(Claimed, st.booleans(), st.none() | ids, small, st.booleans()),
    ended=st.none() | st.builds(reports, st.booleans(), st.sampled_from(["", "again", "none", *Cause]), st.booleans()),
    status=st.none() | st.sampled_from(TaskStatus),
    hold=st.sampled_from(Hold),
    abort_requested=st.booleans(),
    record=st.none() | records,
    starts_seen=small,
    gone_for=seconds,
    steady=st.booleans(),
    final_for=seconds,
    clues=st.builds(Clues, out_of_memory=st.booleans(), not_launched=st.booleans()),
    restarts=small,
)
rules = st.builds(Rules, requeue_on_time_limit=st.booleans(), max_restarts=small)

any_facts = given(sight=sights, rules=rules)
often = settings(
    max_examples=int(os.environ.get("EXPLORE", "120")),
    derandomize="EXPLORE" not in os.environ,
    database=None,
    deadline=None,
)


def found(sight: Sight, rules: Rules, *kinds: type) -> list[due.Action]:
    actions = [action for action in decide(sight, NOW, rules) if isinstance(action, kinds)]
    for action in actions:
        event(type(action).__name__)
    return actions


@often
@any_facts
def test_no_second_job_beside_a_live_one_or_for_a_claimed_task(sight: Sight, rules: Rules) -> None:
    if found(sight, rules, due.Submit, due.LookUp):
        assert sight.entry is not None
        assert not sight.jobs
        assert not (sight.claimed and sight.claimed.won)


@often
@any_facts
def test_uncertain_submission_is_never_repeated_blindly(sight: Sight, rules: Rules) -> None:
    if found(sight, rules, due.Submit) and sight.submitted is not None:
        assert sight.submitted.state is Handed.ACCEPTED
        assert sight.record is not None or sight.gone_for > rules.lost_after


@often
@any_facts
def test_only_own_jobs_are_cancelled_and_none_that_runs_its_task(sight: Sight, rules: Rules) -> None:
    for action in found(sight, rules, due.Cancel):
        assert isinstance(action, due.Cancel)
        assert action.job in {job.id for job in sight.jobs}
        owner = sight.owner if sight.claimed and sight.claimed.won else None
        if owner is not None and action.job == owner.id:
            assert sight.taken_back or (sight.ended is not None and sight.ended.cause is None)
        if not action.only_pending:
            assert owner is not None and action.job == owner.id
            assert sight.final_for > rules.stop_grace
            assert sight.status is not TaskStatus.COMPLETED  # its script may have said so, and goes on


@often
@any_facts
def test_silence_gives_no_final_status(sight: Sight, rules: Rules) -> None:
    """No record and no report: only after the long grace; a record that is not final is no record."""
    certain = sight.record is not None and sight.record.state.is_final
    waits = any(explain_wait(job).hopeless or explain_wait(job).not_launched for job in sight.jobs)
    for action in found(sight, rules, due.Settle, due.Refuse):
        asked = isinstance(action, due.Settle) and sight.abort_requested
        assert certain or waits or asked or sight.gone_for > rules.lost_after
        if sight.record is not None and not sight.jobs:
            assert certain


@often
@any_facts
def test_a_task_that_is_not_ours_gets_no_verdict(sight: Sight, rules: Rules) -> None:
    if found(sight, rules, due.Settle):
        assert sight.claimed is not None
        used_up = sight.status is TaskStatus.QUEUED and not sight.claimed.begun and sight.restarts >= rules.max_restarts
        assert used_up or sight.runs
    if found(sight, rules, due.Refuse):
        assert sight.entry is not None


@often
@any_facts
def test_a_task_is_put_back_only_when_no_job_can_still_run_it(sight: Sight, rules: Rules) -> None:
    for action in found(sight, rules, due.PutBack):
        assert isinstance(action, due.PutBack)
        assert sight.entry is None
        assert not sight.jobs
        assert sight.status is TaskStatus.QUEUED or sight.runs or (sight.ended and sight.ended.again)
        assert not (sight.ended and sight.ended.posted)
        if action.restart:
            assert sight.restarts < rules.max_restarts
            assert not sight.abort_requested


@often
@any_facts
def test_one_direction_at_a_time(sight: Sight, rules: Rules) -> None:
    """A task is handed on, given up, put back or closed: never two of these in one pass."""
    ways = found(sight, rules, due.Submit, due.LookUp, due.Refuse, due.Settle, due.Finish, due.PutBack, due.Close)
    assert len(ways) <= 1
    if any(isinstance(action, due.Close) for action in ways):
        assert not sight.jobs
        assert sight.entry is None
