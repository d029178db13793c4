"""How a job ended, as a status and a sentence that a user can act on."""

from __future__ import annotations

from hpc_agent.domain.job import JobRecord, JobState
from hpc_agent.domain.status import TaskStatus

_WORDS: dict[JobState, tuple[TaskStatus, str]] = {
    JobState.TIMEOUT: (
        TaskStatus.FAILED,
        "the time limit was reached; ask for more with the user property time_limit",
    ),
    JobState.OUT_OF_MEMORY: (
        TaskStatus.FAILED,
        "the job ran out of memory; ask for more with the user property memory_gb",
    ),
    JobState.NODE_FAIL: (TaskStatus.FAILED, "a node of the job failed; enqueue the task again"),
    JobState.BOOT_FAIL: (TaskStatus.FAILED, "a node of the job could not be started; enqueue the task again"),
    JobState.PREEMPTED: (TaskStatus.STOPPED, "the job was preempted and not requeued; enqueue the task again"),
    JobState.DEADLINE: (TaskStatus.FAILED, "the job's deadline passed"),
    JobState.REVOKED: (TaskStatus.STOPPED, "the job runs on another cluster of the federation"),
}


def explain(record: JobRecord) -> tuple[TaskStatus, str]:
    """The final status of a task whose job left no report of its own, and why."""
    if record.state is JobState.CANCELLED:
        by = f" by user {record.cancelled_by}" if record.cancelled_by else ""
        status, text = TaskStatus.STOPPED, f"the job was cancelled{by}"
    elif record.state in _WORDS:
        status, text = _WORDS[record.state]
    else:
        status = TaskStatus.FAILED
        how = f"signal {record.signal}" if record.signal else f"exit code {record.exit_code}"
        text = f"the job ended ({how}) and its agent left no report; see job.out in its run directory"
    where = f" on {record.nodes}" if record.nodes else ""
    after = ""
    if record.started and record.ended:
        after = f" after {_duration(int((record.ended - record.started).total_seconds()))}"
    return status, f"{record.title} {record.raw_state}{after}{where}: {text}"


def lost(job: str, seconds: float) -> str:
    """For a job of which neither squeue nor accounting nor a report says anything any more."""
    return (
        f"Job {job} is lost: for {seconds / 60:.0f} minutes neither the scheduler nor the job itself said "
        "how it ended; enqueue the task again"
    )


def _duration(seconds: int) -> str:
    days, rest = divmod(max(seconds, 0), 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def in_one_line(text: str, limit: int = 500) -> str:
    """``text`` as a status reason: one line, not longer than a page shows. The console has the whole."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
