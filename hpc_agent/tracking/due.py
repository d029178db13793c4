"""What is due for one tracked job: what is known in, actions out. Pure; ``follow`` looks and acts.

The job is the person's own: it is cancelled when its task is aborted, and for no other reason. What is not certain
waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.domain.status import TaskStatus
from hpc_agent.tracking.ending import ending, lost

STILL_SENDING_S = 10.0
"""So long after the job's end its own process may still be sending the rest of the console."""

WAITS = frozenset({JobState.PENDING, JobState.REQUEUED})
_TAKEN_BACK = frozenset({TaskStatus.CREATED, TaskStatus.QUEUED})


@dataclass(frozen=True)
class Sight:
    """All that one pass knows. An array has several jobs, of which each is live, ended or missing."""

    job: str
    status: TaskStatus | None
    """None when the server says that the task does not exist."""
    message: str = ""
    """Its status message."""
    live: tuple[LiveJob, ...] = ()
    ended: tuple[JobRecord, ...] = ()
    missing: int = 0
    """Jobs of which nothing is known now."""
    is_array: bool = False
    queued: bool = True
    """The task was put on a queue when it was submitted; else it waits as ``created``."""
    begun: bool = False
    abort_requested: bool = False
    silenced: bool = False
    """The server stopped the task because it heard nothing for long."""
    inside: bool = False
    """A process of ours in the job sends console and usage."""
    gone_for: float = 0.0
    """Seconds since a pass first found none of its jobs live."""
    steady: bool = False
    """Whether the records were the same in the pass before."""


@dataclass(frozen=True)
class Begin:
    """Set the task started."""


@dataclass(frozen=True)
class Say:
    """Show this as the task's status message."""

    message: str


@dataclass(frozen=True)
class Ping:
    """Tell the server that the task is alive."""


@dataclass(frozen=True)
class Ship:
    """Send what the job has printed."""


@dataclass(frozen=True)
class Cancel:
    why: str


@dataclass(frozen=True)
class End:
    """Send the rest of the console and set the final status."""

    status: TaskStatus
    reason: str


@dataclass(frozen=True)
class Leave:
    """Follow it no more; the job goes on."""

    why: str


Action = Begin | Say | Ping | Ship | Cancel | End | Leave


def decide(sight: Sight, lost_after: float) -> tuple[Action, ...]:
    """The actions that are due, in order; empty when waiting is right."""
    if sight.status is None:
        return (Leave("its task was deleted"),)
    if sight.begun and sight.status in _TAKEN_BACK:
        return (Leave("its task was reset"),)
    return _live(sight) if sight.live else _over(sight, lost_after)


def _live(sight: Sight) -> tuple[Action, ...]:
    if _aborted(sight):
        ending = all(job.state is JobState.COMPLETING for job in sight.live)
        return () if ending else (Cancel("its task was aborted"),)
    waiting = all(job.state in WAITS for job in sight.live)
    started = bool(sight.ended) or not waiting
    actions: list[Action] = []
    if sight.silenced or (started and not sight.begun):
        actions.append(Begin())
    if waiting:
        actions += [Say(_waits(sight))] if _waits(sight) != sight.message else []
        actions += [Ping()] if sight.begun else []
    elif not sight.inside:
        actions += [Ping(), Ship()]
    return tuple(actions)


def _aborted(sight: Sight) -> bool:
    if sight.abort_requested or (sight.status is TaskStatus.STOPPED and not sight.silenced):
        return True
    # Taken off the queue that stands for waiting in Slurm.
    return sight.status is TaskStatus.CREATED and sight.queued


def _waits(sight: Sight) -> str:
    first = sight.live[0]
    name = f"Slurm array {sight.job}" if sight.is_array else f"Slurm job {sight.job}"
    doing = "was requeued and waits" if first.restarts or first.state is JobState.REQUEUED else "is waiting"
    reason = f" ({first.reason})" if first.reason else ""
    start = f", expected to start {first.expected_start:%Y-%m-%d %H:%M} UTC" if first.expected_start else ""
    done = f"; {len(sight.ended)} of {len(sight.ended) + len(sight.live)} elements have ended" if sight.ended else ""
    return f"{name} {doing}{reason}{start}{done}"


def _over(sight: Sight, lost_after: float) -> tuple[Action, ...]:
    if sight.missing:
        long_gone = sight.gone_for > lost_after
        return (End(TaskStatus.FAILED, lost(sight.job, sight.gone_for)),) if long_gone else ()
    if any(record.state.may_be_requeued for record in sight.ended) and not sight.steady:
        return ()
    if sight.inside and sight.gone_for < STILL_SENDING_S:
        return ()
    status, reason = ending(sight.job, sight.ended, is_array=sight.is_array)
    aborted = sight.abort_requested or (sight.status is TaskStatus.STOPPED and not sight.silenced)
    if aborted and status is TaskStatus.STOPPED:
        reason = f"aborted by its user; {reason}"
    return (End(status, reason),)
