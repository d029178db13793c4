"""Records of a run directory: small JSON files, each written whole or not at all.

``runs/<task>/<attempt>/`` is the memory of an attempt, on the shared file system: the daemon and the job write it,
either may die at any line, and the other reads what is there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import UnclearAnswer
from hpc_agent.domain.job_phase import SubmissionState, SubmissionView
from hpc_agent.domain.termination_cause import TerminationCause
from hpc_agent.process_id import ProcessId


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records. Times are UTC."""


class SubmissionRecord(Record, frozen=True, kw_only=True):
    """``submit.json``: written as ``intended`` before sbatch is called, so that a death in between is noticed."""

    state: Literal["intended", "accepted", "uncertain"]
    at: datetime
    queue: str
    """Queue id of the entry."""
    queue_name: str = ""
    cluster: str = ""
    """As ``Scheduler.cluster()`` names it: job ids mean nothing elsewhere."""
    job: str = ""
    known: bool = False
    """Whether the scheduler was seen to list the job under the attempt's name. It may be renamed later."""
    submit_count: int = msgspec.field(default=1, name="tries")
    """How often this attempt was handed to the scheduler."""
    message: str = ""
    """What sbatch said, if that was not clear."""
    doubt: UnclearAnswer | None = None
    looked_at: datetime | None = None
    """When the job was first searched for and not found, by a scheduler that answered."""

    @property
    def submitted(self) -> SubmissionView:
        state, job = SubmissionState(self.state), JobId(self.job) if self.job else None
        return SubmissionView(state, self.at, job, self.submit_count, self.message, self.doubt, self.looked_at)


class StagingJobRecord(Record, frozen=True, kw_only=True):
    """``stage-job.json``: the job that stages for this attempt (``hpc.envs.build_on: job``)."""

    at: datetime
    queue: str = ""
    cluster: str = ""
    job: str = ""
    """Empty: sbatch gave no clear answer."""
    submit_count: int = msgspec.field(default=1, name="tries")
    error: str = ""
    """What sbatch printed when it failed with an error that this version does not know."""
    looked_at: datetime | None = None
    """When the job was first searched for and not found, by a scheduler that answered."""

    @property
    def submitted(self) -> SubmissionView:
        state = SubmissionState.ACCEPTED if self.job else SubmissionState.UNCERTAIN
        doubt = UnclearAnswer.UNKNOWN_ERROR if self.error else None
        job = JobId(self.job) if self.job else None
        return SubmissionView(state, self.at, job, self.submit_count, self.error, doubt, self.looked_at)


class TaskError(Record, frozen=True, kw_only=True):
    """``trouble.json``: an unforeseen error, met ``tries`` times while the task waited."""

    at: datetime
    tries: int
    message: str


class ClaimRecord(Record, frozen=True, kw_only=True):
    """``claim.json``: ``intent`` is written before the task is taken off its queue, ``won`` right after;
    ``over`` when the daemon has taken the task from its executor, which must end if it still lives."""

    state: Literal["intent", "won", "over"]
    at: datetime
    owner: str
    """Who claims: ``job:<id>`` for a job, ``daemon:<host>:<pid>`` for a daemon that refuses the task,
    ``agent:<host>:<pid>`` for an agent that runs it by hand."""
    restart_count: int = msgspec.field(default=0, name="start")
    """Which of the job's starts has the task; 0 is its first."""
    user_process_started: bool = msgspec.field(default=False, name="begun")
    """The user's process was about to be started: from here on it may have run."""
    queue: str = ""
    cluster: str = ""
    host: str = ""
    pid: int = 0
    process: ProcessId | None = None
    """The claiming process; None in records of older versions, which have ``pid`` only."""
    worker: str = ""
    predecessors: tuple[str, ...] = ()
    """Workers of ours that had the task before: of earlier starts of this job, and of earlier attempts."""
    predecessor_may_run: bool = False
    """A process of an earlier start may still run on a node that the scheduler takes for dead."""

    @property
    def process_may_run(self) -> bool:
        """Whether a process of this start, or of an earlier one, may run."""
        return self.user_process_started or self.predecessor_may_run

    @property
    def job(self) -> str:
        """The claiming job; empty for an agent outside the scheduler."""
        kind, _, job = self.owner.partition(":")
        return job if kind == "job" else ""


class ExitReport(Record, frozen=True, kw_only=True):
    """``exit.json``: how the task ended, written before its final status is posted."""

    status: Literal["completed", "failed", "stopped", "none", "again"]
    """The status to post; ``none`` when another has set one, ``again`` when it goes back to its queue."""
    reason: str
    exit_code: int
    at: datetime
    last_line: str = ""
    """What its console ends with."""
    posted: bool = False
    """Whether the server has the status and, unless ``unsent``, the whole log."""
    unsent: bool = False
    """The status did not wait for the rest of the log, which the server would not take for long."""
    refused_at: datetime | None = None
    """When a server that answers all else first did not take the log."""
    ranks_may_run: bool = False
    """A node did not answer at the end: what runs there ends when it sees another start in the run directory."""
    cause: TerminationCause | None = None
    """Set when the job got SIGTERM and the daemon decides the final status: if the same job starts again, the task
    goes on."""


class DoneRecord(Record, frozen=True, kw_only=True):
    """``settled.json``: nothing is left to do for this attempt; written by the daemon."""

    at: datetime
    why: str


class MemoryRecord(Record, frozen=True, kw_only=True):
    """``memory.json``: the most memory that the executor saw in use, for the case that it cannot say so itself."""

    used_mb: float
    limit_mb: float | None = None


class NotifiedRecord(Record, frozen=True, kw_only=True):
    """``notified.json``: events of the task that notifications were sent for."""

    at: datetime | None = None
    events: tuple[str, ...] = ()


class RequeueBudget(Record, frozen=True, kw_only=True):
    """``runs/<task>/restarts.json``: why the task did not end with the attempts it had since a user last enqueued it.
    ``<attempt>.<start>`` of each."""

    requeues: tuple[str, ...] = msgspec.field(default=(), name="of")
