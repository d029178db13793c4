"""Snapshots for the decision table: of each phase, with random other facts, and of any facts at all."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from hpc_agent.domain.attempt import attempt_for
from hpc_agent.domain.ids import JobId, QueueId, TaskId
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S, ExitEvidence, JobRecord, JobState, LiveJob, UnclearAnswer
from hpc_agent.domain.job_phase import WAITING_STATES, SubmissionState, SubmissionView
from hpc_agent.domain.phase import Phase
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
from hpc_agent.schedulers.slurm.wait_reasons import meaning

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
TASK = TaskId("a" * 32)
ATTEMPT = attempt_for("cluster", QueueId("q"), TASK, "1")
ENTRY = QueueEntry(TASK, "1")
OURS, OTHER = JobId("1"), JobId("2")
"""The job that claimed the task, where one did, and a further one."""

HOPELESS, NOT_LAUNCHED = "DependencyNeverSatisfied", "launch failed requeued held"
REASONS = ["", "None", "Priority", "JobHeldUser", HOPELESS, HOPELESS, NOT_LAUNCHED, NOT_LAUNCHED, "odd word"]
STARTED_STATES = [JobState.RUNNING, JobState.SUSPENDED, JobState.COMPLETING, JobState.UNKNOWN]
FINAL = [status for status in TaskStatus if status.is_final]

times = st.integers(-1000, 1000).map(lambda seconds: NOW + timedelta(seconds=seconds))
waits = st.sampled_from([0.0, 59.0, 61.0, 599.0, 601.0, 1e6])
"""Seconds, on both sides of every limit of ``AttemptPolicy``."""
small = st.integers(0, 5)
flags = st.booleans()


def _live_job(**fields: Any) -> LiveJob:
    """With what Slurm's reason means."""
    return LiveJob(**fields, waits=meaning(fields["reason"], fields["id"]))


def jobs_in(states: list[JobState], job: JobId | None = None) -> st.SearchStrategy[LiveJob]:
    return st.builds(
        _live_job,
        id=st.just(job) if job else st.sampled_from([OURS, OTHER]),
        name=st.just(ATTEMPT.job_name),
        state=st.sampled_from(states),
        raw_state=st.just("WORD"),
        reason=st.sampled_from(REASONS),
        restarts=small,
    )


def records_in(states: list[JobState]) -> st.SearchStrategy[JobRecord]:
    return st.builds(
        JobRecord,
        id=st.just(OURS),
        state=st.sampled_from(states),
        raw_state=st.just("WORD"),
        exit_code=st.sampled_from([0, 1]),
        submitted=times,
        started=st.none() | times,
        ended=st.none() | times,
        nodes=st.sampled_from(["", "n1", "n[1-2]"]),
    )


def submissions(*states: SubmissionState) -> st.SearchStrategy[SubmissionView]:
    return st.builds(
        SubmissionView,
        st.sampled_from(states),
        times,
        st.none() | st.just(OURS),
        st.sampled_from([1, 3, 2, 3]),
        doubt=st.none() | st.sampled_from(UnclearAnswer),
        looked_at=st.none() | times,
    )


def _report(posted: bool, what: str | TerminationCause, unsent: bool) -> ExitView:
    cause = what if isinstance(what, TerminationCause) else None
    return ExitView(posted, cause, again=what == "again", gave_up=what == "gave up", unsent=posted and unsent)


def reports(*what: str | TerminationCause, posted: st.SearchStrategy[bool] = flags) -> st.SearchStrategy[ExitView]:
    """``what``: ``status``, ``again``, ``gave up`` or a cause."""
    return st.builds(_report, posted, st.sampled_from(what), flags)


final_records = records_in([state for state in JobState if state.is_final]).map(lambda record: (record,))
doubtful_records = records_in([state for state in JobState if not state.is_final]).map(lambda record: (record,))
no_records: st.SearchStrategy[tuple[JobRecord, ...]] = st.just(())
any_records = no_records | final_records | doubtful_records
any_report = reports("status", "again", "gave up", *TerminationCause)
left_to_us = reports("gave up", *TerminationCause, posted=st.just(False))
any_status = st.none() | st.sampled_from(TaskStatus)
any_job = jobs_in([*WAITING_STATES, *STARTED_STATES])
accepted = submissions(SubmissionState.ACCEPTED)
unclear = submissions(SubmissionState.INTENDED, SubmissionState.UNCERTAIN)
intents = st.builds(ClaimView, st.just(False), st.none() | st.just(OURS), small, flags)
intended_by_job = st.builds(ClaimView, st.just(False), st.just(OURS), small, flags)
wins = st.builds(ClaimView, st.just(True), st.just(OURS), small, flags)
by_any_job = st.builds(ClaimView, flags, st.none() | st.just(OURS), small, flags)
never_started = st.builds(ClaimView, flags, st.none() | st.just(OURS), small, st.just(False))

none = st.none()
nothing_live = st.just(())
not_anothers = st.sampled_from([RunOwner.OURS, RunOwner.UNKNOWN])
in_progress = st.just(TaskStatus.IN_PROGRESS)

ANY: dict[str, st.SearchStrategy[Any]] = {
    "attempt": st.just(ATTEMPT),
    "entry": st.sampled_from([None, ENTRY]),
    "submitted": none | accepted | unclear,
    "jobs": st.lists(any_job, max_size=2, unique_by=lambda job: job.id).map(tuple),
    "claimed": none | by_any_job,
    "ended": none | any_report,
    "status": any_status,
    "run_owner": st.sampled_from(RunOwner),
    "abort_requested": flags,
    "records": any_records,
    "restarts_seen": small,
    "missing_seconds": waits,
    "unconfirmed_seconds": st.sampled_from([0.0, UNCONFIRMED_LIMIT_S, UNCONFIRMED_LIMIT_S + 1]),
    "record_stable": flags,
    "final_seconds": waits,
    "evidence": st.builds(ExitEvidence, out_of_memory=flags, not_launched=flags),
    "requeues_used": st.sampled_from([0, 2, 3, 5]),
}


def _live(claiming: list[JobState]) -> dict[str, st.SearchStrategy[Any]]:
    """The claiming job is in one of these states; there may be another one."""
    spare = st.lists(jobs_in([*WAITING_STATES, *STARTED_STATES], OTHER), max_size=1)
    jobs = st.tuples(jobs_in(claiming, OURS), spare, flags).map(
        lambda drawn: (drawn[0], *drawn[1]) if drawn[2] else (*drawn[1], drawn[0])
    )
    return {"jobs": jobs, "claimed": wins}


_in_queue = {"entry": st.just(ENTRY), "jobs": nothing_live, "claimed": none | intents, "ended": none}
_off_queue = {"entry": none, "jobs": nothing_live, "claimed": by_any_job}
_shown_as_ours = {**_off_queue, "status": in_progress, "run_owner": not_anothers}
_waits_again = {**_live([*WAITING_STATES]), "ended": none | reports(*TerminationCause)}

FACTS: dict[Phase, st.SearchStrategy[dict[str, st.SearchStrategy[Any]]]] = {
    Phase.QUEUED: st.just({**_in_queue, "submitted": none}),
    Phase.UNCONFIRMED: st.just({**_in_queue, "submitted": unclear}),
    Phase.PENDING: st.just(
        {
            "entry": st.just(ENTRY),
            "claimed": none | intents,
            "jobs": jobs_in([*WAITING_STATES]).map(lambda job: (job,)),
        }
    ),
    Phase.STARTED: st.just(
        {
            "entry": st.just(ENTRY),
            "claimed": none | intents,
            "jobs": jobs_in(STARTED_STATES).map(lambda job: (job,)),
        }
    ),
    Phase.UNCLAIMED_END: st.just({**_in_queue, "submitted": accepted}),
    Phase.STALE_ENTRY: st.sampled_from(
        [
            {**_in_queue, "claimed": wins},
            {**_in_queue, "ended": any_report},
        ]
    ),
    Phase.DEQUEUED: st.just(
        {
            "entry": none,
            "claimed": none | intents,
            "jobs": st.lists(any_job, min_size=1, max_size=2, unique_by=lambda job: job.id).map(tuple),
        }
    ),
    Phase.NEVER_CLAIMED: st.just({"entry": none, "jobs": nothing_live, "claimed": none}),
    Phase.RUNNING: st.sampled_from(
        [
            {**_live(STARTED_STATES), "status": in_progress, "run_owner": not_anothers},
            {**_live(STARTED_STATES), "status": st.sampled_from([None, TaskStatus.UNKNOWN])},
            {**_waits_again, "status": st.sampled_from([None, TaskStatus.UNKNOWN])},
        ]
    ),
    Phase.REQUEUED: st.just({**_waits_again, "status": in_progress, "run_owner": not_anothers}),
    Phase.ENDED_REQUEUED: st.just({**_live([*WAITING_STATES]), "ended": reports("status", "again", "gave up")}),
    Phase.WITHDRAWN: st.sampled_from(
        [
            {**started, "status": status, "run_owner": holder}
            for started in (_live(STARTED_STATES), _waits_again)
            for status, holder in (
                (st.sampled_from([*FINAL, TaskStatus.CREATED, TaskStatus.QUEUED]), st.sampled_from(RunOwner)),
                (in_progress, st.just(RunOwner.ANOTHERS)),
            )
        ]
    ),
    Phase.DUPLICATE: st.just({"claimed": wins, "jobs": jobs_in(STARTED_STATES, OTHER).map(lambda job: (job,))}),
    Phase.UNPOSTED: st.sampled_from(
        [
            {**_shown_as_ours, "claimed": wins, "ended": reports("status", posted=st.just(False))},
            {
                **_shown_as_ours,
                "claimed": wins,
                "ended": reports("gave up", posted=st.just(False)),
                "run_owner": st.just(RunOwner.UNKNOWN),
            },
            {
                **_off_queue,
                "claimed": never_started,
                "status": st.just(TaskStatus.QUEUED),
                "ended": reports("status", posted=st.just(False)),
            },
        ]
    ),
    Phase.POSTED: st.just(
        {**_off_queue, "ended": reports("status", "gave up", *TerminationCause, posted=st.just(True))}
    ),
    Phase.PUT_BACK: st.just({**_off_queue, "ended": reports("again", posted=st.just(True))}),
    Phase.RETURNING: st.just({**_off_queue, "ended": reports("again", posted=st.just(False))}),
    Phase.TAKEN_OFF: st.just(
        {
            **_off_queue,
            "claimed": never_started,
            "status": st.just(TaskStatus.QUEUED),
            "ended": none | left_to_us,
        }
    ),
    Phase.ENQUEUED_AGAIN: st.just(
        {
            **_off_queue,
            "claimed": st.builds(ClaimView, flags, st.just(OURS), small, st.just(True)),
            "status": st.just(TaskStatus.QUEUED),
            "ended": none | reports("status", "gave up", *TerminationCause, posted=st.just(False)),
        }
    ),
    Phase.UNCLEAR: st.just({**_off_queue, "ended": none | left_to_us, "status": st.just(TaskStatus.UNKNOWN)}),
    Phase.OVER: st.sampled_from(
        [
            {**_off_queue, "ended": none | left_to_us, "status": st.sampled_from([None, TaskStatus.CREATED, *FINAL])},
            {**_off_queue, "ended": none | left_to_us, "status": in_progress, "run_owner": st.just(RunOwner.ANOTHERS)},
        ]
    ),
    Phase.LOST_RACE: st.just(
        {
            **_shown_as_ours,
            "claimed": intents,
            "run_owner": st.just(RunOwner.UNKNOWN),
            "ended": none | left_to_us,
        }
    ),
    Phase.BY_HAND: st.just(
        {
            **_shown_as_ours,
            "claimed": st.builds(ClaimView, st.just(True), none, small, flags),
            "ended": none,
        }
    ),
    Phase.UNREPORTED: st.sampled_from(
        [
            {**_shown_as_ours, "claimed": wins, "ended": none | reports(*TerminationCause, posted=st.just(False))},
            {
                **_shown_as_ours,
                "claimed": wins,
                "ended": reports("gave up", posted=st.just(False)),
                "run_owner": st.just(RunOwner.OURS),
            },
            {**_shown_as_ours, "claimed": intended_by_job, "run_owner": st.just(RunOwner.OURS), "ended": none},
        ]
    ),
}
"""What makes each phase; all other facts are any. Independent of ``domain.phase``, which must tell the same."""


def snapshots_of(*phases: Phase, **facts: st.SearchStrategy[Any]) -> st.SearchStrategy[AttemptSnapshot]:
    """In one of these phases; ``facts`` instead of any, where the phase leaves them open."""

    def built(made: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[AttemptSnapshot]:
        return st.builds(AttemptSnapshot, **{**ANY, **facts, **made})

    return st.sampled_from(phases).flatmap(lambda phase: FACTS[phase].flatmap(built))


any_snapshot = st.builds(AttemptSnapshot, **ANY)
rules = st.builds(AttemptPolicy, requeue_on_time_limit=flags, max_restarts=st.sampled_from([3, 1, 0, 5]))
