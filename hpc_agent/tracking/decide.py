"""What is due for one tracked job: what is known in, actions out. Pure; ``follow`` looks and acts.

The job is the person's own: it is cancelled when its task is aborted, and for no other reason. What is not certain
waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpc_agent.domain.job import JobRecord, JobState, LiveJob
from hpc_agent.domain.status import TaskStatus
from hpc_agent.tracking.tracked_outcome import lost, tracked_outcome

STILL_SENDING_S = 10.0
"""So long after the job's end its own process may still be sending the rest of the console."""

WAITS = frozenset({JobState.PENDING, JobState.REQUEUED})
_TAKEN_BACK = frozenset({TaskStatus.CREATED, TaskStatus.QUEUED})


@dataclass(frozen=True)
class TrackedJobSnapshot:
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
    missing_seconds: float = 0.0
    """Seconds since a pass first found none of its jobs live."""
    record_stable: bool = False
    """Whether the records were the same in the pass before."""


@dataclass(frozen=True)
class MarkStarted:
    """Set the task started."""


@dataclass(frozen=True)
class ShowMessage:
    """Show this as the task's status message."""

    message: str


@dataclass(frozen=True)
class PingTask:
    """Tell the server that the task is alive."""


@dataclass(frozen=True)
class SendConsole:
    """Send what the job has printed."""


@dataclass(frozen=True)
class CancelTracked:
    why: str


@dataclass(frozen=True)
class EndTask:
    """Send the rest of the console and set the final status."""

    status: TaskStatus
    reason: str


@dataclass(frozen=True)
class Untrack:
    """Follow it no more; the job goes on."""

    why: str


TrackingAction = MarkStarted | ShowMessage | PingTask | SendConsole | CancelTracked | EndTask | Untrack


def decide(snapshot: TrackedJobSnapshot, lost_after: float) -> tuple[TrackingAction, ...]:
    """The actions that are due, in order; empty when waiting is right."""
    if snapshot.status is None:
        return (Untrack("its task was deleted"),)
    if snapshot.begun and snapshot.status in _TAKEN_BACK:
        return (Untrack("its task was reset"),)
    return _live(snapshot) if snapshot.live else _over(snapshot, lost_after)


def _live(snapshot: TrackedJobSnapshot) -> tuple[TrackingAction, ...]:
    if _aborted(snapshot):
        tracked_outcome = all(job.state is JobState.COMPLETING for job in snapshot.live)
        return () if tracked_outcome else (CancelTracked("its task was aborted"),)
    waiting = all(job.state in WAITS for job in snapshot.live)
    started = bool(snapshot.ended) or not waiting
    actions: list[TrackingAction] = []
    if snapshot.silenced or (started and not snapshot.begun):
        actions.append(MarkStarted())
    if waiting:
        actions += [ShowMessage(_waits(snapshot))] if _waits(snapshot) != snapshot.message else []
        actions += [PingTask()] if snapshot.begun else []
    elif not snapshot.inside:
        actions += [PingTask(), SendConsole()]
    return tuple(actions)


def _aborted(snapshot: TrackedJobSnapshot) -> bool:
    if snapshot.abort_requested or (snapshot.status is TaskStatus.STOPPED and not snapshot.silenced):
        return True
    # Taken off the queue that stands for waiting in Slurm.
    return snapshot.status is TaskStatus.CREATED and snapshot.queued


def _waits(snapshot: TrackedJobSnapshot) -> str:
    first = snapshot.live[0]
    name = f"Slurm array {snapshot.job}" if snapshot.is_array else f"Slurm job {snapshot.job}"
    doing = "was requeued and waits" if first.restarts or first.state is JobState.REQUEUED else "is waiting"
    reason = f" ({first.reason})" if first.reason else ""
    start = f", expected to start {first.expected_start:%Y-%m-%d %H:%M} UTC" if first.expected_start else ""
    done = (
        f"; {len(snapshot.ended)} of {len(snapshot.ended) + len(snapshot.live)} elements have ended"
        if snapshot.ended
        else ""
    )
    return f"{name} {doing}{reason}{start}{done}"


def _over(snapshot: TrackedJobSnapshot, lost_after: float) -> tuple[TrackingAction, ...]:
    if snapshot.missing:
        long_gone = snapshot.missing_seconds > lost_after
        return (EndTask(TaskStatus.FAILED, lost(snapshot.job, snapshot.missing_seconds)),) if long_gone else ()
    if any(record.state.may_be_requeued for record in snapshot.ended) and not snapshot.record_stable:
        return ()
    if snapshot.inside and snapshot.missing_seconds < STILL_SENDING_S:
        return ()
    status, reason = tracked_outcome(snapshot.job, snapshot.ended, is_array=snapshot.is_array)
    aborted = snapshot.abort_requested or (snapshot.status is TaskStatus.STOPPED and not snapshot.silenced)
    if aborted and status is TaskStatus.STOPPED:
        reason = f"aborted by its user; {reason}"
    return (EndTask(status, reason),)
