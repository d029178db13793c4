"""Policy of tracked jobs: what is due for a user's own job, given a snapshot. Pure; ``follower`` acts.

The job is the user's: it is cancelled when its task is aborted, and for no other reason. What is not certain waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from hpc_agent.domain.job import JobRecord, JobState
from hpc_agent.domain.job_phase import WAITING_STATES, JobPhase, JobSnapshot, job_phase
from hpc_agent.domain.outcome import SCRIPT_ADVICE, lost, named
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.wait_reason import SCRIPT_TERMS, WaitReason, explain_wait

STILL_SENDING_S = 10.0
"""Seconds after the job's end in which its sidecar may still send the rest of the console."""
_NAMED_ELEMENTS = 10
"""How many elements of an array a sentence names."""

_TAKEN_BACK = frozenset({TaskStatus.CREATED, TaskStatus.QUEUED})


class TrackedJobSnapshot(JobSnapshot, frozen=True):
    """Everything that one pass observed of one tracked job and its task."""

    job: str
    status: TaskStatus | None
    """None when the server says that the task does not exist."""
    message: str = ""
    """Its status message."""
    is_array: bool = False
    queued: bool = True
    """The task was put on a queue when it was submitted; else it waits as ``created``."""
    task_started: bool = False
    abort_requested: bool = False
    silenced: bool = False
    """The server stopped the task because it heard nothing for long."""
    has_sidecar: bool = False
    """A sidecar in the job sends console and usage."""

    @property
    def is_aborted(self) -> bool:
        return self.abort_requested or (self.status is TaskStatus.STOPPED and not self.silenced)

    @property
    def ended(self) -> tuple[JobRecord, ...]:
        """Records of its jobs that have certainly ended."""
        return tuple(record for record in self.records if record.state.is_final)

    @property
    def title(self) -> str:
        return f"Slurm {'array' if self.is_array else 'job'} {self.job}"


class MarkStarted(msgspec.Struct, frozen=True):
    """Set the task started."""


class ShowMessage(msgspec.Struct, frozen=True):
    """Show ``message`` as the task's status message, and ``console``, if any, as a line of its console, once."""

    message: str
    console: str = ""


class PingTask(msgspec.Struct, frozen=True):
    """Tell the server that the task is alive."""


class SendConsole(msgspec.Struct, frozen=True):
    """Send what the job has printed."""


class CancelTracked(msgspec.Struct, frozen=True):
    why: str


class EndTask(msgspec.Struct, frozen=True):
    """Send the rest of the console and set the final status."""

    status: TaskStatus
    reason: str
    exit_code: int = 0
    """Of a script that failed by itself, negative for a signal; 0 where the scheduler names another cause."""
    output_not_opened: bool = False
    """The reason is ``SCRIPT_ADVICE.output``: Slurm could not open the job's output file."""


class Untrack(msgspec.Struct, frozen=True):
    """Track it no more; the job goes on."""

    why: str


TrackingAction = MarkStarted | ShowMessage | PingTask | SendConsole | CancelTracked | EndTask | Untrack


def decide(snapshot: TrackedJobSnapshot, lost_after: float) -> tuple[TrackingAction, ...]:
    """The actions that are due, in order; empty when waiting is right."""
    if snapshot.status is None:
        return (Untrack("its task was deleted"),)
    if snapshot.task_started and snapshot.status in _TAKEN_BACK:
        return (Untrack("its task was reset"),)
    phase = job_phase(snapshot, lost_after)
    if snapshot.jobs:
        return _listed(snapshot, phase)
    if phase is JobPhase.LOST:
        return (EndTask(TaskStatus.FAILED, lost(snapshot.job, snapshot.missing_seconds, SCRIPT_ADVICE).reason),)
    return _ended(snapshot) if phase is JobPhase.ENDED else ()


def _listed(snapshot: TrackedJobSnapshot, phase: JobPhase) -> tuple[TrackingAction, ...]:
    # Taken off the queue that shows that it waits in Slurm.
    is_dequeued = snapshot.status is TaskStatus.CREATED and snapshot.queued
    if snapshot.is_aborted or is_dequeued:
        return () if phase is JobPhase.ENDING else (CancelTracked("its task was aborted"),)
    waits = all(job.state in WAITING_STATES for job in snapshot.jobs)
    has_started = bool(snapshot.ended) or not waits
    actions: list[TrackingAction] = []
    if snapshot.silenced or (has_started and not snapshot.task_started):
        actions.append(MarkStarted())
    if waits:
        wait = _wait(snapshot)
        actions += [ShowMessage(wait.text, wait.text if wait.stuck else "")] if wait.text != snapshot.message else []
        actions += [PingTask()] if snapshot.task_started else []
    elif not snapshot.has_sidecar:
        actions += [PingTask(), SendConsole()]
    return tuple(actions)


def _wait(snapshot: TrackedJobSnapshot) -> WaitReason:
    wait = explain_wait(snapshot.jobs[0], SCRIPT_TERMS, snapshot.title)
    ended, elements = len(snapshot.ended), len(snapshot.ended) + len(snapshot.jobs)
    done = f"; {ended} of {elements} elements have ended" if ended else ""
    return WaitReason(f"{wait.text}{done}", wait.stuck)


def _ended(snapshot: TrackedJobSnapshot) -> tuple[TrackingAction, ...]:
    if snapshot.has_sidecar and snapshot.missing_seconds < STILL_SENDING_S:
        return ()
    end = tracked_outcome(snapshot.title, snapshot.counted_records, is_array=snapshot.is_array)
    if snapshot.is_aborted and end.status is TaskStatus.STOPPED:
        end = replace(end, reason=f"aborted by its user; {end.reason}")
    return (replace(end, exit_code=_exit_code(snapshot)),)


def _exit_code(snapshot: TrackedJobSnapshot) -> int:
    record = snapshot.counted_records[0]
    if snapshot.is_array or record.state is not JobState.FAILED:
        return 0
    return -record.signal if record.signal else record.exit_code or 0


def tracked_outcome(title: str, records: Sequence[JobRecord], *, is_array: bool) -> EndTask:
    """The final status and its reason, from the records of all jobs of one submission."""
    ends = [_outcome(title, record) for record in records]
    if not is_array:
        return ends[0]
    statuses = [end.status for end in ends]
    worst = next((s for s in (TaskStatus.FAILED, TaskStatus.STOPPED) if s in statuses), TaskStatus.COMPLETED)
    return EndTask(worst, f"{title}: {_counted(records)}")


def _outcome(title: str, record: JobRecord) -> EndTask:
    outcome = named(record, advice=SCRIPT_ADVICE)
    if outcome is not None:
        return EndTask(outcome.status, outcome.reason)
    text = f"{title} {record.raw_state.split(' ')[0]}{record.duration_text}"
    text += f" on {record.nodes}" if record.nodes else ""
    if record.state is JobState.COMPLETED:
        return EndTask(TaskStatus.COMPLETED, text)
    if record.state is JobState.REVOKED:
        return EndTask(TaskStatus.STOPPED, f"{text}: it runs on another cluster of the federation")
    if record.output_not_opened:
        return EndTask(TaskStatus.FAILED, f"{text}: {SCRIPT_ADVICE.output}", output_not_opened=True)
    return EndTask(TaskStatus.FAILED, f"{text}: {'ended by ' if record.signal else ''}{record.exit_text}")


def _counted(records: Sequence[JobRecord]) -> str:
    """``8 COMPLETED, 2 FAILED (12_3, 12_7)``."""
    counts = Counter(record.state for record in records)
    parts = []
    for state, count in counts.most_common():
        names = [record.id for record in records if record.state is state]
        more = ", …" if len(names) > _NAMED_ELEMENTS else ""
        listed = f" ({', '.join(names[:_NAMED_ELEMENTS])}{more})" if state is not JobState.COMPLETED else ""
        parts.append(f"{count} {state.value}{listed}")
    return ", ".join(parts)
