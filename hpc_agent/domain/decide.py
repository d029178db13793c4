"""What is due for one attempt: facts and time in, actions out. Pure; ``daemon`` gathers the facts and acts.

The table of design.md section 3. Absence of a fact is never taken for its opposite: what is uncertain waits, is looked
up again, or is protected by the claim (``queues.remove_task`` has exactly one winner).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.domain.queue import QueueEntry
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.verdict import explain, lost


class Handed(Enum):
    """How far the submission of an attempt got."""

    INTENDED = "intended"
    """Somebody was about to call sbatch, and may have died there."""
    ACCEPTED = "accepted"
    UNCERTAIN = "uncertain"
    """sbatch gave no clear answer: the job may exist."""


@dataclass(frozen=True)
class Submitted:
    state: Handed
    at: datetime
    job: JobId | None = None
    tries: int = 1


@dataclass(frozen=True)
class Claimed:
    """Who took, or was about to take, the task off its queue. ``job`` is None for an agent outside the scheduler."""

    won: bool
    at: datetime
    job: JobId | None = None


@dataclass(frozen=True)
class Ended:
    """The executor's own report."""

    posted: bool
    interrupted: bool = False


@dataclass(frozen=True)
class Sight:
    """All that one pass knows about an attempt."""

    attempt: Attempt
    entry: QueueEntry | None = None
    submitted: Submitted | None = None
    jobs: tuple[LiveJob, ...] = ()
    """Live jobs under the attempt's name; more than one only after an uncertain submission."""
    claimed: Claimed | None = None
    ended: Ended | None = None
    abort_requested: bool = False
    """Its user asked for an end, which the server leaves to us."""
    status: TaskStatus | None = None
    """The task's status on the server; None when it was not asked or the task does not exist."""
    record: JobRecord | None = None
    """The terminal record of the job that matters (the claiming one, else the submitted one)."""
    gone_for: float = 0.0
    """Seconds since a pass first found no live job."""
    steady: bool = False
    """Whether the record was the same in the pass before."""
    final_for: float = 0.0
    """Seconds since a pass first found the task's status final or taken back."""

    @property
    def owner(self) -> LiveJob | None:
        """The live job that claimed the task."""
        return next((job for job in self.jobs if self.claimed and job.id == self.claimed.job), None)


@dataclass(frozen=True)
class Rules:
    """Patience, in seconds, and how often a job may end without starting its task."""

    look_up_for: float = 60.0
    put_back_after: float = 60.0
    lost_after: float = 600.0
    stop_grace: float = 60.0
    max_tries: int = 3


@dataclass(frozen=True)
class Submit:
    """Stage, render and submit, as try number ``number``."""

    number: int = 1


@dataclass(frozen=True)
class Adopt:
    """A job under the attempt's name exists: remember its id."""

    job: JobId


@dataclass(frozen=True)
class LookUp:
    """Ask squeue and sacct for the name; nothing found means: submit as try ``number``, if ``give_up`` is set."""

    number: int
    give_up: bool


@dataclass(frozen=True)
class Cancel:
    job: JobId
    why: str
    only_pending: bool = True


@dataclass(frozen=True)
class Say:
    """Show this as the task's status message."""

    message: str
    ping: bool = False


@dataclass(frozen=True)
class Finish:
    """Post what the exit report says, after the rest of the console."""


@dataclass(frozen=True)
class Settle:
    """Post a final status for a job that left no report."""

    status: TaskStatus
    reason: str


@dataclass(frozen=True)
class PutBack:
    """Back to the head of its queue: somebody died between taking it off and starting it."""

    why: str


@dataclass(frozen=True)
class Refuse:
    """Claim the queued task and give it a final status."""

    status: TaskStatus
    reason: str


@dataclass(frozen=True)
class DropClaim:
    """An intent whose owner is certainly gone, while the task is still queued: it must not block the next job."""


@dataclass(frozen=True)
class Close:
    """Nothing is left to do for this attempt."""

    why: str


Action = Submit | Adopt | LookUp | Cancel | Say | Finish | Settle | PutBack | Refuse | DropClaim | Close

_GIVEN_UP = frozenset({TaskStatus.CREATED, TaskStatus.QUEUED})


def decide(sight: Sight, now: datetime, rules: Rules = Rules()) -> tuple[Action, ...]:
    """The actions that are due, in order; empty when waiting is right."""
    if sight.jobs:
        return _live(sight, rules)
    if sight.entry is not None:
        return _waiting_without_job(sight, now, rules)
    return _gone(sight, now, rules)


def _live(sight: Sight, rules: Rules) -> tuple[Action, ...]:
    actions: list[Action] = []
    first = sight.jobs[0]
    if sight.submitted is not None and sight.submitted.state is not Handed.ACCEPTED:
        actions.append(Adopt(first.id))
    if sight.claimed is not None and sight.claimed.won:
        spare = [job for job in sight.jobs if job.id != sight.claimed.job]
        actions += [Cancel(job.id, "another job has the task") for job in spare]
        if sight.owner is not None:
            actions += _running(sight, sight.owner, rules)
    elif sight.entry is not None:
        actions += _pending_news(first)
    elif sight.claimed is None:
        actions += [Cancel(job.id, "the task left the queue") for job in sight.jobs if job.state is JobState.PENDING]
    return tuple(actions)


def _pending_news(job: LiveJob) -> list[Action]:
    if job.state is not JobState.PENDING or job.reason in ("", "None"):
        return []  # not looked at by Slurm yet
    start = f", expected to start {job.expected_start:%Y-%m-%d %H:%M} UTC" if job.expected_start else ""
    return [Say(f"{job.title} is waiting ({job.reason}){start}")]


def _running(sight: Sight, job: LiveJob, rules: Rules) -> list[Action]:
    waits_again = job.state in (JobState.PENDING, JobState.REQUEUED)
    if waits_again and sight.abort_requested:
        return [Cancel(job.id, "aborted while it waited to go on"), Settle(TaskStatus.STOPPED, "aborted by its user")]
    if sight.status is TaskStatus.IN_PROGRESS:
        return [Say(f"{job.title} was requeued and waits ({job.reason})", ping=True)] if waits_again else []
    taken_back = sight.status in _GIVEN_UP or (sight.status is not None and sight.status.is_final)
    if taken_back and waits_again:
        return [Cancel(job.id, f"the task is {_word(sight)} and its requeued job has not started")]
    if taken_back and sight.final_for > rules.stop_grace and not sight.ended:
        # The executor stops by itself; this one does not.
        return [Cancel(job.id, f"the task is {_word(sight)} and its job has not ended", only_pending=False)]
    return []


def _word(sight: Sight) -> str:
    return sight.status.value if sight.status else "gone"


def _waiting_without_job(sight: Sight, now: datetime, rules: Rules) -> tuple[Action, ...]:
    if sight.ended is not None or (sight.claimed is not None and sight.claimed.won):
        return ()  # the entry was seen before a job took it and ended: the next look is true
    submitted = sight.submitted
    if submitted is None:
        return (Submit(),)
    age = (now - submitted.at).total_seconds()
    if submitted.state is not Handed.ACCEPTED:
        return (LookUp(submitted.tries + 1, give_up=age > rules.look_up_for),)
    record = sight.record
    if record is None:
        if sight.gone_for <= rules.lost_after:
            return ()
        return _again(sight, submitted, f"{submitted.tries} jobs vanished without a trace before they took the task")
    if record.state.may_be_requeued and not sight.steady:
        return ()
    if record.state is JobState.CANCELLED:
        status, reason = explain(record)
        return _after_claim(sight, Refuse(status, f"{reason} while it waited; enqueue the task again to go on"))
    return _again(
        sight,
        submitted,
        f"{submitted.tries} jobs ended without taking the task; the last: {explain(record)[1]}",
        rules.max_tries,
    )


def _again(sight: Sight, submitted: Submitted, words: str, max_tries: int = 3) -> tuple[Action, ...]:
    if submitted.tries >= max_tries:
        return _after_claim(sight, Refuse(TaskStatus.FAILED, words))
    return _after_claim(sight, Submit(submitted.tries + 1))


def _after_claim(sight: Sight, action: Action) -> tuple[Action, ...]:
    return (DropClaim(), action) if sight.claimed else (action,)


def _gone(sight: Sight, now: datetime, rules: Rules) -> tuple[Action, ...]:
    if sight.claimed is None:
        return _never_claimed(sight, now, rules)
    ended = sight.ended
    if ended is not None and sight.status is TaskStatus.QUEUED and not ended.posted:
        return (PutBack("taken off the queue by a job that could not start it"),)
    if ended is not None:
        if ended.posted or sight.status is not TaskStatus.IN_PROGRESS:
            return (Close("its report is posted"),)
        return _verdict(sight, rules) if ended.interrupted else (Finish(),)
    if sight.status is TaskStatus.QUEUED:
        if sight.gone_for > rules.put_back_after:
            return (PutBack("taken off the queue by a job that died before it started"),)
        return ()
    if sight.status is not TaskStatus.IN_PROGRESS:
        return (Close(f"the task is {_word(sight)}"),)
    if sight.claimed.job is None:
        # Run by hand outside the scheduler: that agent reports for itself, the server's watchdog covers its death.
        return ()
    return _verdict(sight, rules)


def _verdict(sight: Sight, rules: Rules) -> tuple[Action, ...]:
    """The claiming job is gone without a last word, or was told to end and may yet come back."""
    assert sight.claimed is not None
    if sight.record is None:
        if sight.gone_for <= rules.lost_after:
            return ()
        return (
            (Finish(),) if sight.ended else (Settle(TaskStatus.FAILED, lost(sight.claimed.job or "?", sight.gone_for)),)
        )
    if not sight.steady and (sight.record.state.may_be_requeued or sight.ended):
        return ()
    return (Settle(*explain(sight.record)),)


def _never_claimed(sight: Sight, now: datetime, rules: Rules) -> tuple[Action, ...]:
    submitted = sight.submitted
    unclear = submitted is not None and submitted.state is not Handed.ACCEPTED
    if unclear and submitted and (now - submitted.at).total_seconds() <= rules.look_up_for:
        return ()  # a job may still turn up under this name, and must then be cancelled
    return (Close("the task left the queue"),)
