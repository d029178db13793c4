"""Phase of a job: where it is between its submission and its end, whether its script is ours or not. Pure.

The three policies that watch jobs (tasks from queues, people's own scripts, staging jobs) make a ``JobSnapshot`` of
what one pass observed. ``job_phase`` names the phase, and the policy decides by it. A phase is derived and never
stored: two daemons, or one that was restarted, see the same phase. ``TRANSITIONS`` says which phase may follow which
from one pass to the next; docs/architecture.md shows it as a diagram.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum

import msgspec

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S, JobRecord, JobState, LiveJob, UnclearAnswer

WAITING_STATES = (JobState.PENDING, JobState.REQUEUED)
"""States of a job that has not started, or has not started again."""


_DOUBT_S = 60.0


class SubmissionState(Enum):
    """Progress of a submission."""

    INTENDED = "intended"
    """sbatch was about to be called; the process may have died there."""
    ACCEPTED = "accepted"
    UNCERTAIN = "uncertain"
    """sbatch gave no clear answer: the job may exist."""


class SubmissionView(msgspec.Struct, frozen=True):
    """A submission as its record describes it. ``submit_count`` counts the submissions of the same attempt."""

    state: SubmissionState
    at: datetime
    job: JobId | None = None
    submit_count: int = 1
    message: str = ""
    """What sbatch printed, if that was not clear."""
    doubt: UnclearAnswer | None = None
    looked_at: datetime | None = None
    """When the job was first searched for and not found, by a scheduler that answered."""

    @property
    def is_unclear(self) -> bool:
        """Whether it is not known if there is a job."""
        return self.state is not SubmissionState.ACCEPTED

    def is_search_over(self, now: datetime, look_up_seconds: float) -> bool:
        """Whether an unclear submission made no job, given that the scheduler answers and knows none.

        An error of sbatch that this version does not know was a refusal if two searches, ``look_up_seconds`` apart,
        find no job. After other unclear answers the time counts from the submission.
        """
        since = self.looked_at if self.doubt is UnclearAnswer.UNKNOWN_ERROR else self.at
        return since is not None and abs((now - since).total_seconds()) > look_up_seconds


class JobSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one pass observed of the job of one submission. An array is one submission of several jobs."""

    submitted: SubmissionView | None = None
    jobs: tuple[LiveJob, ...] = ()
    """Jobs that the scheduler lists: more than one of an array, or after an unclear submission."""
    records: tuple[JobRecord, ...] = ()
    """Of the jobs that are gone. One that is not final says that there is no verdict yet: a source has the job for
    alive, or gave no answer."""
    expected: int = 1
    """Jobs that the submission is of."""
    missing_seconds: float = 0.0
    """Seconds since a pass first found no live job, without those in which a source of records gave no answer or had
    the job for alive."""
    unconfirmed_seconds: float = 0.0
    """Seconds for which, pass after pass, no live job was found and a record was not final."""
    record_stable: bool = False
    """Whether the records have been the same for some seconds."""
    running_seconds: float = 0.0
    """Seconds for which, pass after pass, a job ran."""
    final_seconds: float = 0.0
    """Seconds since a pass first found the task's status final or taken back."""
    dequeued_seconds: float = 0.0
    """Seconds since a pass first found the task taken off the queue that it was put back to."""
    restarts_seen: int = 0
    """Highest restart count that the job was seen with."""

    @property
    def record(self) -> JobRecord | None:
        """The first record that counts. One that is not final counts for a day (``UNCONFIRMED_LIMIT_S``): accounting
        may show RUNNING forever of a job that the controller lost."""
        return next(iter(self.counted_records), None)

    @property
    def counted_records(self) -> tuple[JobRecord, ...]:
        """Records without those that have not been final for too long."""
        if self.unconfirmed_seconds <= UNCONFIRMED_LIMIT_S:
            return self.records
        return tuple(record for record in self.records if record.state.is_final)

    @property
    def is_unconfirmed(self) -> bool:
        """Whether a source has a job for alive, or one that may know more gave no answer. That ends nothing, however
        long the job is gone from the list."""
        return any(not record.state.is_final for record in self.counted_records)

    @property
    def is_withdrawn(self) -> bool:
        """Whether the job's task is certainly no longer ours to run; without a task it never is."""
        return False

    @property
    def is_dequeued(self) -> bool:
        """Whether the job's task was put back to its queue and seems to have been taken off it by its user."""
        return False

    @property
    def restart_count(self) -> int:
        """Restart count that the job is seen with; 0 where that is not certain."""
        return highest_restart_count(self.jobs)


_COUNTED_STATES = (*WAITING_STATES, JobState.RUNNING)


def highest_restart_count(jobs: Iterable[LiveJob]) -> int:
    """Of jobs that wait, or run, for another time; not of one that is just being taken down to be requeued."""
    return max((job.restarts for job in jobs if job.state in _COUNTED_STATES), default=0)


class JobPhase(Enum):
    """Phase of a job between its submission and its end."""

    NOT_SUBMITTED = "not submitted"
    SUBMIT_INTENDED = "submission intended"
    """sbatch was about to be called, and no job of it is known."""
    SUBMIT_UNCLEAR = "submission unclear"
    """sbatch gave no clear answer, and no job of it is known."""
    PENDING = "pending"
    """Listed; it has never started."""
    REQUEUED = "requeued"
    """Listed; it waits for its next start."""
    RUNNING = "running"
    ENDING = "ending"
    """Listed as COMPLETING: its processes end, or the node does not answer."""
    MISSING = "missing"
    """Not listed, and no record tells how it ended."""
    UNCONFIRMED = "unconfirmed"
    """Not listed, while a source of records has it for alive or gives no answer."""
    MAY_RETURN = "may return"
    """Not listed, with a record after which it may be listed again: requeued, or given to another cluster."""
    ENDED = "ended"
    """Not listed, with a record that is final."""
    LOST = "lost"
    """Missing for so long, while all sources answered, that no record is expected any more."""


def job_phase(snapshot: JobSnapshot, lost_after: float) -> JobPhase:
    """The one phase that these facts give. ``lost_after``: seconds after which a missing job is lost."""
    if snapshot.jobs:
        return _live_phase(snapshot.jobs)
    if snapshot.submitted is None and not snapshot.records:
        return JobPhase.NOT_SUBMITTED
    if snapshot.submitted is not None and snapshot.submitted.is_unclear and not snapshot.records:
        intended = snapshot.submitted.state is SubmissionState.INTENDED
        return JobPhase.SUBMIT_INTENDED if intended else JobPhase.SUBMIT_UNCLEAR
    return gone_phase(snapshot, lost_after)


def _live_phase(jobs: tuple[LiveJob, ...]) -> JobPhase:
    if all(job.state is JobState.COMPLETING for job in jobs):
        return JobPhase.ENDING
    if any(job.state not in WAITING_STATES for job in jobs):
        return JobPhase.RUNNING
    return JobPhase.REQUEUED if any(map(_has_started, jobs)) else JobPhase.PENDING


def _has_started(job: LiveJob) -> bool:
    return job.restarts > 0 or job.state is JobState.REQUEUED


def doubt_seconds(lost_after: float) -> float:
    """Seconds for which what is not seen may still show up: a minute, or less where jobs are called lost sooner."""
    return min(_DOUBT_S, lost_after)


def gone_phase(snapshot: JobSnapshot, lost_after: float) -> JobPhase:
    """As ``job_phase``, of a job that is known to have existed and is not listed."""
    if snapshot.is_unconfirmed:
        return JobPhase.UNCONFIRMED
    records = snapshot.counted_records
    is_overdue = snapshot.missing_seconds > lost_after
    if len(records) < snapshot.expected:
        return JobPhase.LOST if is_overdue else JobPhase.MISSING
    if any(record.state.may_be_requeued for record in records) and not snapshot.record_stable:
        return JobPhase.MAY_RETURN
    # In a federation another cluster has the job: its end here tells nothing, but nothing waits forever.
    if any(record.state is JobState.REVOKED for record in records) and not is_overdue:
        return JobPhase.MAY_RETURN
    return JobPhase.ENDED


_P = JobPhase
GROUPS: Mapping[str, tuple[JobPhase, ...]] = {
    "LISTED": (_P.PENDING, _P.RUNNING, _P.REQUEUED, _P.ENDING),
    "GONE": (_P.MISSING, _P.UNCONFIRMED, _P.MAY_RETURN, _P.ENDED),
}
"""Phases of a job that the scheduler lists, and of one that it lists no more."""
_LISTED, _GONE = (frozenset(group) for group in GROUPS.values())

TRANSITIONS: Mapping[JobPhase, frozenset[JobPhase]] = {
    _P.NOT_SUBMITTED: frozenset({_P.SUBMIT_INTENDED, _P.SUBMIT_UNCLEAR}) | _LISTED | _GONE,
    _P.SUBMIT_INTENDED: frozenset({_P.SUBMIT_UNCLEAR, _P.NOT_SUBMITTED}) | _LISTED | _GONE,
    _P.SUBMIT_UNCLEAR: frozenset({_P.SUBMIT_INTENDED}) | _LISTED | _GONE,
    _P.PENDING: _LISTED | _GONE,
    _P.REQUEUED: (_LISTED - {_P.PENDING}) | _GONE,
    _P.RUNNING: (_LISTED - {_P.PENDING}) | _GONE,
    _P.ENDING: (_LISTED - {_P.PENDING}) | _GONE,
    _P.MISSING: frozenset({_P.LOST}) | _LISTED | _GONE,
    _P.UNCONFIRMED: frozenset({_P.LOST}) | _LISTED | _GONE,
    _P.MAY_RETURN: frozenset({_P.LOST}) | _LISTED | _GONE,
    _P.ENDED: _GONE | _LISTED | frozenset({_P.SUBMIT_INTENDED, _P.SUBMIT_UNCLEAR}),
    _P.LOST: _GONE | _LISTED | frozenset({_P.SUBMIT_INTENDED, _P.SUBMIT_UNCLEAR}),
}
"""Phase → phases that the next pass may find. Passes are seconds to minutes apart: what lies between is skipped."""
