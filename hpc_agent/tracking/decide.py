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
    exit_code: int = 0
    """Of a script that failed by itself, negative for a signal; 0 where the scheduler names another cause."""


@dataclass(frozen=True)
class Untrack:
    """Follow it no more; the job goes on."""

    why: str


TrackingAction = MarkStarted | ShowMessage | PingTask | SendConsole | CancelTracked | EndTask | Untrack


def decide(sight: TrackedJobSnapshot, lost_after: float) -> tuple[TrackingAction, ...]:
    """The actions that are due, in order; empty when waiting is right."""
    if sight.status is None:
        return (Untrack("its task was deleted"),)
    if sight.begun and sight.status in _TAKEN_BACK:
        return (Untrack("its task was reset"),)
    return _live(sight) if sight.live else _over(sight, lost_after)


def _live(sight: TrackedJobSnapshot) -> tuple[TrackingAction, ...]:
    if _aborted(sight):
        tracked_outcome = all(job.state is JobState.COMPLETING for job in sight.live)
        return () if tracked_outcome else (CancelTracked("its task was aborted"),)
    waiting = all(job.state in WAITS for job in sight.live)
    started = bool(sight.ended) or not waiting
    actions: list[TrackingAction] = []
    if sight.silenced or (started and not sight.begun):
        actions.append(MarkStarted())
    if waiting:
        actions += [ShowMessage(_waits(sight))] if _waits(sight) != sight.message else []
        actions += [PingTask()] if sight.begun else []
    elif not sight.inside:
        actions += [PingTask(), SendConsole()]
    return tuple(actions)


def _aborted(sight: TrackedJobSnapshot) -> bool:
    if sight.abort_requested or (sight.status is TaskStatus.STOPPED and not sight.silenced):
        return True
    # Taken off the queue that stands for waiting in Slurm.
    return sight.status is TaskStatus.CREATED and sight.queued


def _waits(sight: TrackedJobSnapshot) -> str:
    first = sight.live[0]
    name = f"Slurm array {sight.job}" if sight.is_array else f"Slurm job {sight.job}"
    doing = "was requeued and waits" if first.restarts or first.state is JobState.REQUEUED else "is waiting"
    reason = f" ({first.reason})" if first.reason else ""
    start = f", expected to start {first.expected_start:%Y-%m-%d %H:%M} UTC" if first.expected_start else ""
    done = f"; {len(sight.ended)} of {len(sight.ended) + len(sight.live)} elements have ended" if sight.ended else ""
    return f"{name} {doing}{reason}{start}{done}"


def _over(sight: TrackedJobSnapshot, lost_after: float) -> tuple[TrackingAction, ...]:
    if sight.missing:
        long_gone = sight.missing_seconds > lost_after
        return (EndTask(TaskStatus.FAILED, lost(sight.job, sight.missing_seconds)),) if long_gone else ()
    if any(record.state.may_be_requeued for record in sight.ended) and not sight.record_stable:
        return ()
    if sight.inside and sight.missing_seconds < STILL_SENDING_S:
        return ()
    status, reason = tracked_outcome(sight.job, sight.ended, is_array=sight.is_array)
    aborted = sight.abort_requested or (sight.status is TaskStatus.STOPPED and not sight.silenced)
    if aborted and status is TaskStatus.STOPPED:
        reason = f"aborted by its user; {reason}"
    return (EndTask(status, reason, _exit_code(sight)),)


def _exit_code(sight: TrackedJobSnapshot) -> int:
    record = sight.ended[0]
    if sight.is_array or record.state is not JobState.FAILED:
        return 0
    return -record.signal if record.signal else record.exit_code or 0
