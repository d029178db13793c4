"""A batch job as the scheduler describes it, and the possible answers to a submission."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import msgspec

from hpc_agent.domain.duration import format_duration
from hpc_agent.domain.ids import JobId


class JobState(Enum):
    """Slurm's states, folded to what a decision needs. ``UNKNOWN`` is any word this version does not know."""

    PENDING = "PENDING"
    REQUEUED = "REQUEUED"
    """Waiting or about to wait again after it ran once (REQUEUED, REQUEUE_HOLD, REQUEUE_FED, SPECIAL_EXIT)."""
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    REVOKED = "REVOKED"
    """Another cluster of the federation has it. Listed as long as it lives there."""
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        """Whether a record with this state ends the job for good, requeues aside.

        See docs/internals/slurm.md#job-states.
        """
        return self in _FINAL

    @property
    def may_be_requeued(self) -> bool:
        """Final only once the record stays unchanged while the job stays away (docs/internals/slurm.md#job-states)."""
        return self in _MAY_COME_BACK


_FINAL = frozenset(
    {
        JobState.COMPLETED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.TIMEOUT,
        JobState.OUT_OF_MEMORY,
        JobState.NODE_FAIL,
        JobState.PREEMPTED,
        JobState.BOOT_FAIL,
        JobState.DEADLINE,
        JobState.REVOKED,
    }
)
_MAY_COME_BACK = frozenset({JobState.NODE_FAIL, JobState.PREEMPTED, JobState.BOOT_FAIL})


class WaitMeaning(msgspec.Struct, frozen=True):
    """Meaning of a scheduler's wait reason for the job's user."""

    advice: str = ""
    """What the user can do, or what will happen; empty where nothing is known."""
    stuck: bool = False
    """It goes on only if a user acts."""
    hopeless: bool = False
    """It never goes on."""
    not_launched: bool = False
    """The scheduler failed to start it, and holds it for that reason only."""


class LiveJob(msgspec.Struct, frozen=True):
    """A job that the scheduler still lists."""

    id: JobId
    name: str
    state: JobState
    raw_state: str
    """The scheduler's own word."""
    reason: str = ""
    """Why it waits, in the scheduler's own words (``Resources``, ``Priority``); empty when it does not."""
    expected_start: datetime | None = None
    nodes: str = ""
    restarts: int = 0
    submitted: datetime | None = None
    """When it was submitted, or requeued; None where the scheduler does not say."""
    scheduler: str = "Slurm"
    waits: WaitMeaning = WaitMeaning()

    @property
    def title(self) -> str:
        return f"{self.scheduler} job {self.id}"


class JobRecord(msgspec.Struct, frozen=True):
    """Record of a job in the scheduler or its accounting: the only ground for an outcome, if its state is final."""

    id: JobId
    state: JobState
    raw_state: str
    name: str = ""
    exit_code: int | None = 0
    """None: not known."""
    signal: int = 0
    submitted: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    nodes: str = ""
    reason: str = ""
    cancelled_by: str = ""
    """User name or id from ``CANCELLED by <uid>``."""
    time_limit: int | None = None
    """Seconds; None where there was none, or the scheduler does not say."""
    scheduler: str = "Slurm"
    pilot: str = ""
    """The pilot whose end was its own, and how that ended: ``Slurm job 12, TIMEOUT``; else empty."""

    @property
    def title(self) -> str:
        return f"{self.scheduler} job {self.id}"

    @property
    def exit_text(self) -> str:
        """How its process ended, for a sentence."""
        if self.signal:
            return f"signal {self.signal}"
        return "exit code unknown" if self.exit_code is None else f"exit code {self.exit_code}"

    @property
    def duration_text(self) -> str:
        """`` after 1:00:00``, for a sentence; empty where it is not known."""
        if self.started is None or self.ended is None:
            return ""
        return f" after {format_duration((self.ended - self.started).total_seconds())}"

    @property
    def output_not_opened(self) -> bool:
        """Whether it never ran because Slurm could not open its output file, which Slurm shows as signal 53 at once."""
        ran = (self.ended - self.started).total_seconds() if self.ended and self.started else 0.0
        # Of one that a signal ended the exit code says nothing.
        return self.state is JobState.FAILED and self.signal == _NOT_OPENED and ran < _AT_ONCE_S


_NOT_OPENED = 53
_AT_ONCE_S = 5.0


class ExitEvidence(msgspec.Struct, frozen=True):
    """Evidence that a job left behind in addition to its record."""

    used_mb: float | None = None
    """The most memory that was seen in use."""
    limit_mb: float | None = None
    out_of_memory: bool = False
    not_launched: bool = False
    """The scheduler itself failed to start it."""
    last_words: str = ""
    """The last line that it printed itself."""


UNCONFIRMED_LIMIT_S = 24 * 3600.0
"""Seconds for which a job does not count as missing while accounting gives no answer, or has it for alive: slurmdbd may
be away for hours. Not forever: a record may show RUNNING forever of a job that slurmctld lost."""


def unconfirmed_record(job: JobId) -> JobRecord:
    """Substitute for a record, where a source that may know more gave no answer."""
    return JobRecord(job, JobState.UNKNOWN, "")


class CurrentJob(msgspec.Struct, frozen=True):
    """State of the running job that asks, from the scheduler. Seconds are the scheduler's, by its own clock."""

    state: JobState
    reason: str = ""
    restarts: int = 0
    ran_for: int = 0
    time_limit: int | None = None
    """None: none."""
    preempted: bool = False

    @property
    def left(self) -> int | None:
        """Seconds to the time limit."""
        return None if self.time_limit is None else self.time_limit - self.ran_for


class Accepted(msgspec.Struct, frozen=True):
    """The scheduler has the job."""

    job: JobId
    cluster: str = ""
    """The cluster that it went to, if sbatch was given one (``--clusters``)."""


class Refused(msgspec.Struct, frozen=True):
    """A definite no in the scheduler's own words: submitting the same again cannot succeed."""

    message: str


class LimitReached(msgspec.Struct, frozen=True):
    """A limit is met: the same submission may succeed when other jobs have ended."""

    message: str


class UnclearAnswer(Enum):
    """Reason why it is not known whether a submission made a job."""

    NO_ANSWER = "no answer"
    """Nothing came back, or words about the way to the controller: other submissions would meet the same."""
    NO_JOB_ID = "no job id"
    """sbatch ended well, but did not say clearly which job it made."""
    UNKNOWN_ERROR = "unknown error"
    """sbatch failed, in words that are not known. If no job comes of it, it was a refusal."""


class OutcomeUnknown(msgspec.Struct, frozen=True):
    """Anything else. The job may exist: look it up by name, never submit again blindly.

    See docs/internals/slurm.md#submission.
    """

    message: str
    doubt: UnclearAnswer = UnclearAnswer.NO_ANSWER


SubmitResult = Accepted | Refused | LimitReached | OutcomeUnknown
