"""Snapshot of an attempt: everything that one pass of the daemon observed of it."""

from __future__ import annotations

from enum import Enum

import msgspec

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import ExitEvidence, LiveJob
from hpc_agent.domain.job_phase import JobSnapshot, highest_restart_count
from hpc_agent.domain.queue import QueueEntry
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination_cause import TerminationCause


class ClaimView(msgspec.Struct, frozen=True):
    """Claim of the task: the job that took, or was about to take, it off its queue. ``job`` is None for an agent
    outside the scheduler."""

    won: bool
    job: JobId | None = None
    restart_count: int = 0
    """Of the job's starts, the one whose agent has the task: 0 for its first."""
    user_process_started: bool = False
    """The user's process may have run."""


class ExitView(msgspec.Struct, frozen=True):
    """The executor's own report, or what the daemon has decided on."""

    posted: bool
    cause: TerminationCause | None = None
    """Set where the daemon decides the final status: the job got SIGTERM."""
    reason: str = ""
    again: bool = False
    """It goes back to its queue; perhaps it is there already."""
    gave_up: bool = False
    """It names no status: the executor took the task for withdrawn by its user, or for reassigned."""
    unsent: bool = False
    """Posted although the server does not have the whole console yet."""

    @property
    def names_status(self) -> bool:
        """Whether the executor itself decided the final status."""
        return self.cause is None and not self.again and not self.gave_up


class RunOwner(Enum):
    """Owner of the run that the server shows as going on."""

    OURS = "ours"
    ANOTHERS = "another's"
    """A later attempt has the task, or another agent."""
    UNKNOWN = "unknown"


_NO_EVIDENCE = ExitEvidence()


class AttemptSnapshot(JobSnapshot, frozen=True):
    """Everything that one pass observed of one attempt: its job, its task and its run directory.

    ``record`` is of the claiming job, else of the submitted one.
    """

    attempt: Attempt
    entry: QueueEntry | None = None
    claimed: ClaimView | None = None
    ended: ExitView | None = None
    status: TaskStatus | None = None
    """The task's status on the server; None when it was not asked or the task does not exist."""
    run_owner: RunOwner = RunOwner.UNKNOWN
    abort_requested: bool = False
    """Only of a task that shows as running: an abort ends any other at once."""
    evidence: ExitEvidence = _NO_EVIDENCE
    requeues_used: int = 0
    """How often the task was put back or continued because of how a job of it ended."""

    @property
    def owner(self) -> LiveJob | None:
        """The live job that claimed the task."""
        return next((job for job in self.jobs if self.claimed and job.id == self.claimed.job), None)

    @property
    def runs(self) -> bool:
        """Whether the server shows our run as going on."""
        return self.status is TaskStatus.IN_PROGRESS and self.run_owner is not RunOwner.ANOTHERS

    @property
    def is_dequeued(self) -> bool:
        """The server then gives the task the status from before, in progress, and no agent runs it. An agent of another
        kind that has just taken it looks the same until its first report."""
        is_put_back = self.ended is not None and self.ended.again and self.ended.posted
        return is_put_back and self.runs and self.run_owner is RunOwner.OURS

    @property
    def restart_count(self) -> int:
        return highest_restart_count(() if self.owner is None else (self.owner,))

    @property
    def is_withdrawn(self) -> bool:
        """Whether the task is certainly no longer ours to run. An unknown status tells nothing."""
        if self.status is TaskStatus.IN_PROGRESS:
            return self.run_owner is RunOwner.ANOTHERS
        return self.status in (TaskStatus.CREATED, TaskStatus.QUEUED) or bool(self.status and self.status.is_final)


class AttemptPolicy(msgspec.Struct, frozen=True):
    """Limits of an attempt: waits in seconds, and how often something is tried again."""

    look_up_seconds: float = 60.0
    requeue_after: float = 60.0
    lost_after: float = 600.0
    stop_grace: float = 60.0
    max_tries: int = 3
    """Jobs that may end, or fail to start, without claiming the task."""
    quick_death: float = 600.0
    """Slurm itself takes five minutes to notice that a node is dead (SlurmdTimeout)."""
    requeue_on_time_limit: bool = False
    max_restarts: int = 3
