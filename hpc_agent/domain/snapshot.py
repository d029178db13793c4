"""All that one pass of the daemon knows about an attempt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S, JobRecord, LiveJob, UnclearAnswer
from hpc_agent.domain.outcome import ExitEvidence
from hpc_agent.domain.queue import QueueEntry
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.termination import TerminationCause


class SubmissionState(Enum):
    """How far the submission of an attempt got."""

    INTENDED = "intended"
    """Somebody was about to call sbatch, and may have died there."""
    ACCEPTED = "accepted"
    UNCERTAIN = "uncertain"
    """sbatch gave no clear answer: the job may exist."""


@dataclass(frozen=True)
class SubmissionView:
    state: SubmissionState
    at: datetime
    job: JobId | None = None
    tries: int = 1
    message: str = ""
    """What sbatch said, if that was not clear."""
    doubt: UnclearAnswer | None = None
    looked_at: datetime | None = None
    """When the job was first looked for and not found, by a scheduler that answered."""


@dataclass(frozen=True)
class ClaimView:
    """Who took, or was about to take, the task off its queue. ``job`` is None for an agent outside the scheduler."""

    won: bool
    job: JobId | None = None
    start: int = 0
    """Of the job's starts, the one whose agent has the task: 0 for its first."""
    begun: bool = False
    """The user's process may have run."""


@dataclass(frozen=True)
class ExitView:
    """The executor's own report, or what the daemon has decided on."""

    posted: bool
    cause: TerminationCause | None = None
    """Set where the verdict is left to the daemon: the job was told to end."""
    reason: str = ""
    again: bool = False
    """It goes back to its queue; perhaps it is there already."""
    gave_up: bool = False
    """It names no status: the executor took the task for withdrawn by its user, or for somebody else's."""
    unsent: bool = False
    """Posted although the server does not have the whole console yet."""

    @property
    def names_status(self) -> bool:
        """Whether it says all that is to be said: no verdict is left to anybody."""
        return self.cause is None and not self.again and not self.gave_up


class RunOwner(Enum):
    """Whose run it is that the server shows as going on."""

    OURS = "ours"
    ANOTHERS = "another's"
    """A later attempt has the task, or another agent."""
    UNKNOWN = "unknown"


_NO_CLUES = ExitEvidence()


@dataclass(frozen=True)
class AttemptSnapshot:
    attempt: Attempt
    entry: QueueEntry | None = None
    submitted: SubmissionView | None = None
    jobs: tuple[LiveJob, ...] = ()
    """Live jobs under the attempt's name; more than one only after an uncertain submission."""
    claimed: ClaimView | None = None
    ended: ExitView | None = None
    status: TaskStatus | None = None
    """The task's status on the server; None when it was not asked or the task does not exist."""
    hold: RunOwner = RunOwner.UNKNOWN
    abort_requested: bool = False
    """Only ever of a task that shows as running: an abort ends any other at once."""
    record: JobRecord | None = None
    """Of the job that matters (the claiming one, else the submitted one), once it is gone. One that is not final says
    that there is no verdict yet: a source has the job for alive, or gave no answer."""
    starts_seen: int = 0
    """The highest restart count that the job was seen with."""
    missing_seconds: float = 0.0
    """Seconds since a pass first found no live job, without those in which a source of records gave no answer or had it
    for alive."""
    unconfirmed_seconds: float = 0.0
    """Seconds for which, pass after pass, no live job was found and the record was not final."""
    record_stable: bool = False
    """Whether the record has been the same for some seconds."""
    final_seconds: float = 0.0
    """Seconds since a pass first found the task's status final or taken back."""
    clues: ExitEvidence = _NO_CLUES
    restarts: int = 0
    """How often the task was put back or continued because of how a job of it ended."""

    @property
    def owner(self) -> LiveJob | None:
        """The live job that claimed the task."""
        return next((job for job in self.jobs if self.claimed and job.id == self.claimed.job), None)

    @property
    def runs(self) -> bool:
        """Whether the server shows our run as going on."""
        return self.status is TaskStatus.IN_PROGRESS and self.hold is not RunOwner.ANOTHERS

    @property
    def is_in_doubt(self) -> bool:
        """Whether a source has the job for alive, or one that may know more gave no answer. That ends nothing, however
        long the job is gone from the list."""
        return self.record is not None and not self.record.state.is_final

    @property
    def taken_back(self) -> bool:
        """Whether the task is certainly no longer ours to run. A status that nobody knows says nothing."""
        if self.status is TaskStatus.IN_PROGRESS:
            return self.hold is RunOwner.ANOTHERS
        return self.status in (TaskStatus.CREATED, TaskStatus.QUEUED) or bool(self.status and self.status.is_final)


@dataclass(frozen=True)
class AttemptPolicy:
    """Patience, in seconds, and how often something is tried again."""

    look_up_seconds: float = 60.0
    requeue_after: float = 60.0
    lost_after: float = 600.0
    doubted_at_most: float = UNCONFIRMED_LIMIT_S
    """How long a record that is not final keeps every verdict off."""
    stop_grace: float = 60.0
    max_tries: int = 3
    """Jobs that may end, or fail to start, without taking the task."""
    quick_death: float = 600.0
    """Slurm itself takes five minutes to notice that a node is dead (SlurmdTimeout)."""
    requeue_on_time_limit: bool = False
    max_restarts: int = 3
