"""How a person's own job ended, as a status and a sentence. Pure; the job's words and numbers are Slurm's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hpc_agent.domain.job import JobRecord, JobState
from hpc_agent.domain.status import TaskStatus

_STOPPED = frozenset({JobState.CANCELLED, JobState.PREEMPTED, JobState.REVOKED})
_ADVICE = {
    JobState.TIMEOUT: "the time limit was reached; ask for more with --time",
    JobState.OUT_OF_MEMORY: "it ran out of memory; ask for more with --mem",
    JobState.NODE_FAIL: "a node failed; submit it again",
    JobState.BOOT_FAIL: "a node could not be started; submit it again",
    JobState.PREEMPTED: "it was preempted and not requeued; submit it again",
    JobState.DEADLINE: "its deadline passed",
    JobState.REVOKED: "it runs on another cluster of the federation",
}
UNOPENED = "its output file could not be opened"
"""In a reason, where Slurm says no more; who can look at the files says more in its place."""
_NAMED = 10
"""So many elements are named in a sentence."""


def tracked_outcome(job: str, records: Sequence[JobRecord], *, is_array: bool) -> tuple[TaskStatus, str]:
    """The final status and its reason, from the records of all that belongs to ``job``."""
    if not is_array:
        return _status(records[0]), _sentence(job, records[0])
    statuses = [_status(record) for record in records]
    worst = next((s for s in (TaskStatus.FAILED, TaskStatus.STOPPED) if s in statuses), TaskStatus.COMPLETED)
    return worst, f"Slurm array {job}: {_counted(records)}"


def lost(job: str, seconds: float) -> str:
    """For a job of which neither squeue nor accounting says anything any more."""
    return f"Slurm job {job} is lost: for {seconds / 60:.0f} minutes the scheduler did not say how it ended"


def _status(record: JobRecord) -> TaskStatus:
    if record.state is JobState.COMPLETED:
        return TaskStatus.COMPLETED
    return TaskStatus.STOPPED if record.state in _STOPPED else TaskStatus.FAILED


def _sentence(job: str, record: JobRecord) -> str:
    words = f"Slurm job {job} {record.raw_state.split(' ')[0]}"
    if record.started and record.ended:
        words += f" after {_duration(int((record.ended - record.started).total_seconds()))}"
    if record.nodes:
        words += f" on {record.nodes}"
    why = _why(record)
    return f"{words}: {why}" if why else words


def _why(record: JobRecord) -> str:
    if record.state is JobState.CANCELLED:
        return f"cancelled by user {record.cancelled_by}" if record.cancelled_by else "cancelled"
    if record.state is JobState.FAILED:
        if record.output_not_opened:
            return UNOPENED
        return f"ended by {record.exit_words}" if record.signal else record.exit_words
    return _ADVICE.get(record.state, "")


def _counted(records: Sequence[JobRecord]) -> str:
    """``8 COMPLETED, 2 FAILED (12_3, 12_7)``."""
    counts = Counter(record.state for record in records)
    parts = []
    for state, count in counts.most_common():
        names = [record.id for record in records if record.state is state]
        more = ", …" if len(names) > _NAMED else ""
        named = f" ({', '.join(names[:_NAMED])}{more})" if state is not JobState.COMPLETED else ""
        parts.append(f"{count} {state.value}{named}")
    return ", ".join(parts)


def _duration(seconds: int) -> str:
    days, rest = divmod(max(seconds, 0), 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock
