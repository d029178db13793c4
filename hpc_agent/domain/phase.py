"""Phase of an attempt: which row of the decision table holds for it. Pure; no clock, no settings.

A phase is derived from what one pass sees (``AttemptSnapshot``), never stored: two daemons, or one that was
restarted, see the same phase. ``domain.decide`` has what is due in each phase.
"""

from __future__ import annotations

from enum import Enum

from hpc_agent.domain.job_phase import WAITING_STATES, SubmissionState
from hpc_agent.domain.snapshot import AttemptSnapshot, RunOwner
from hpc_agent.domain.status import TaskStatus


class Phase(Enum):
    """Phase of an attempt between the queue and a final status."""

    # The task is in its queue.
    QUEUED = "queued"
    """No job was submitted for it."""
    UNCONFIRMED = "unconfirmed"
    """A job may exist: sbatch was about to be called, or gave no clear answer."""
    PENDING = "pending"
    """Its job waits for its start."""
    STARTED = "started"
    """Its job has started and has not claimed the task yet."""
    UNCLAIMED_END = "unclaimed end"
    """Its job is gone and did not claim the task."""
    STALE_ENTRY = "stale entry"
    """It was claimed after the queue was read: the next pass sees it without its entry."""

    # The task left its queue, and no claim is known to have won.
    DEQUEUED = "dequeued"
    """Jobs of it are still there."""
    NEVER_CLAIMED = "never claimed"
    """No job of it is there, and no claim."""

    # A job claimed the task and is there.
    RUNNING = "running"
    """Nothing says that the job must not go on."""
    REQUEUED = "requeued"
    """The task shows as running while its job waits for its next start."""
    ENDED_REQUEUED = "ended, requeued"
    """The job waits for its next start though the task came to its end in this one."""
    WITHDRAWN = "withdrawn"
    """The task is final, queued again or run by another agent while the job is there."""
    DUPLICATE = "duplicate"
    """The claiming job is gone, and another job of the same attempt is there."""

    # The task was claimed, or about to be, and no job of it is there.
    UNPOSTED = "unposted"
    """A report names the final status, which the server may not have yet."""
    POSTED = "posted"
    """The server has the final status, or the queue has the task again."""
    PUT_BACK = "put back"
    """Back in its queue, where the next attempt has not started it yet; or taken off it by its user."""
    RETURNING = "returning"
    """On its way back to the head of its queue."""
    TAKEN_OFF = "taken off"
    """Off its queue, not started, and not running on the server."""
    ENQUEUED_AGAIN = "enqueued again"
    """Its user enqueued it again after it ran."""
    UNCLEAR = "unclear"
    """The server's status for the task is not known."""
    OVER = "over"
    """The task is final, a draft, deleted, or run by another agent."""
    LOST_RACE = "lost race"
    """A claim was intended only, and another agent runs the task."""
    BY_HAND = "by hand"
    """Run by an agent outside the scheduler, which reports for itself."""
    UNREPORTED = "unreported"
    """The claiming job is gone, no report names a status, and the server shows the task as running."""


def phase_of(snapshot: AttemptSnapshot) -> Phase:
    """The one phase that holds for these facts."""
    won = snapshot.claimed is not None and snapshot.claimed.won
    if snapshot.jobs:
        return _with_claiming_job(snapshot) if won else _with_jobs(snapshot)
    if snapshot.entry is not None:
        return Phase.STALE_ENTRY if won or snapshot.ended else _queued(snapshot)
    return _off_its_queue(snapshot)


def _with_jobs(snapshot: AttemptSnapshot) -> Phase:
    if snapshot.entry is None:
        return Phase.DEQUEUED
    return Phase.PENDING if snapshot.jobs[0].state in WAITING_STATES else Phase.STARTED


def _with_claiming_job(snapshot: AttemptSnapshot) -> Phase:
    job = snapshot.owner
    if job is None:
        return Phase.DUPLICATE
    if job.state in WAITING_STATES:
        if snapshot.ended is not None and snapshot.ended.cause is None:
            return Phase.ENDED_REQUEUED
        if snapshot.runs:
            return Phase.REQUEUED
    return Phase.WITHDRAWN if snapshot.is_withdrawn else Phase.RUNNING


def _queued(snapshot: AttemptSnapshot) -> Phase:
    if snapshot.submitted is None:
        return Phase.QUEUED
    return Phase.UNCLAIMED_END if snapshot.submitted.state is SubmissionState.ACCEPTED else Phase.UNCONFIRMED


def _off_its_queue(snapshot: AttemptSnapshot) -> Phase:
    claimed, ended = snapshot.claimed, snapshot.ended
    if claimed is None:
        return Phase.NEVER_CLAIMED
    if ended is not None and ended.posted:
        return Phase.PUT_BACK if ended.again else Phase.POSTED
    if ended is not None and ended.again:
        return Phase.RETURNING
    if snapshot.status is TaskStatus.QUEUED:
        if claimed.user_process_started:
            return Phase.ENQUEUED_AGAIN
        return Phase.UNPOSTED if ended is not None and ended.names_status else Phase.TAKEN_OFF
    if snapshot.status is TaskStatus.UNKNOWN:
        return Phase.UNCLEAR
    if not snapshot.runs:
        return Phase.OVER
    if not claimed.won and snapshot.run_owner is not RunOwner.OURS:
        return Phase.LOST_RACE
    return _not_running_any_more(snapshot)


def _not_running_any_more(snapshot: AttemptSnapshot) -> Phase:
    """The server shows the task as our running one."""
    ended = snapshot.ended
    if ended is None:
        return Phase.BY_HAND if snapshot.claimed and snapshot.claimed.job is None else Phase.UNREPORTED
    if ended.names_status or (ended.gave_up and snapshot.run_owner is not RunOwner.OURS):
        return Phase.UNPOSTED
    return Phase.UNREPORTED
