"""Row of the table of jobs: one task with its job. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.job import JobState, LiveJob
from hpc_agent.domain.wait_reason import SCRIPT_TERMS, TASK_TERMS, RequestTerms
from hpc_agent.schedulers.inspector import ListedJob

QUEUED, STAGING, SUBMITTING, PENDING, REQUEUED, RUNNING = (
    *("queued", "staging", "submitting", "pending", "requeued", "running"),
)
SUSPENDED, COMPLETING, MISSING = "suspended", "completing", "missing"
STATES: Mapping[str, str] = {
    RUNNING: "its job runs",
    SUSPENDED: "its job is suspended",
    COMPLETING: "its job is ending",
    REQUEUED: "its job waits to be started again",
    PENDING: "its job waits in the scheduler",
    SUBMITTING: "whether it has a job is not clear yet",
    STAGING: "code and environment are being made ready",
    QUEUED: "it waits in its queue and has no job yet",
    MISSING: "the scheduler lists its job no more, and how it ended is not known yet",
    "completed": "ended well",
    "failed": "ended with an error",
    "stopped": "aborted or cancelled",
    "closed": "closed by its user",
    "published": "published by its user",
}
"""State of a row → what it means; in the order of the table."""
ENDED = ("completed", "failed", "stopped", "closed", "published")
SCRIPT = "script"
"""Kind of a row: a person's own script, submitted with ``hpc-agent sbatch``."""

_STATES_OF_JOBS = {
    JobState.PENDING: PENDING,
    JobState.REQUEUED: REQUEUED,
    JobState.RUNNING: RUNNING,
    JobState.SUSPENDED: SUSPENDED,
    JobState.COMPLETING: COMPLETING,
}


class TaskRow(msgspec.Struct, frozen=True):
    """Everything that the table shows of a task. Empty, None: not known, or there is no such thing."""

    task: TaskId
    name: str = ""
    queue: str = ""
    """Name of the queue."""
    kind: str = "queue"
    """``queue``: a task from a queue; ``script``: a person's own script."""
    job: str = ""
    state: str = ""
    reason: str = ""
    """The scheduler's own word for why it waits."""
    why: str = ""
    """Why it waits, or how it ended, in words."""
    expected_start: datetime | None = None
    nodes: str = ""
    partition: str = ""
    used_seconds: int | None = None
    limit_seconds: int | None = None
    gpu_percent: float | None = None
    cpu_percent: float | None = None
    place: int = 0
    """In its queue, from 1; 0: it is in none."""
    ended: str = ""
    """When its status became final, as the server writes it."""

    def as_json(self) -> dict[str, object]:
        start = self.expected_start
        return {
            "task": self.task,
            "name": self.name,
            "kind": self.kind,
            "queue": self.queue,
            "place": self.place or None,
            "job": self.job,
            "state": self.state,
            "reason": self.reason,
            "why": self.why,
            "expected_start": start.isoformat() if start else None,
            "nodes": self.nodes,
            "partition": self.partition,
            "used_seconds": self.used_seconds,
            "limit_seconds": self.limit_seconds,
            "gpu_percent": self.gpu_percent,
            "cpu_percent": self.cpu_percent,
            "ended": self.ended or None,
        }


def row_of_jobs(task: TaskId, jobs: Sequence[ListedJob], *, kind: str = "queue", job: str = "") -> TaskRow:
    """Of a task with one job, or with the listed elements of an array. ``job``: the array's own id."""
    shown = min(jobs, key=lambda listed: _rank(state_of(listed.job)))
    live = shown.job
    terms = SCRIPT_TERMS if kind == SCRIPT else TASK_TERMS
    why = wait_words(live, terms)
    if len(jobs) > 1:
        why = "; ".join(filter(None, [count_states(jobs), why]))
    return TaskRow(
        task=task,
        kind=kind,
        job=job or live.id,
        state=state_of(live),
        reason=live.reason,
        why=why,
        expected_start=live.expected_start,
        nodes=live.nodes,
        partition=shown.partition,
        used_seconds=shown.used_seconds,
        limit_seconds=shown.limit_seconds,
    )


def state_of(job: LiveJob) -> str:
    return _STATES_OF_JOBS.get(job.state, job.raw_state.lower())


def wait_words(job: LiveJob, terms: RequestTerms = TASK_TERMS) -> str:
    """Why a job waits: the scheduler's reason in words where they are known; empty for one that does not wait."""
    advice = terms.fill(job.waits.advice)
    if not job.reason:
        return ""
    return f"{job.reason}: {advice}" if advice else job.reason


def count_states(jobs: Iterable[ListedJob]) -> str:
    """``2 running, 8 pending``."""
    states = [state_of(listed.job) for listed in jobs]
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states), key=_rank))


def _rank(state: str) -> int:
    order = list(STATES)
    return order.index(state) if state in order else len(order)


def ordered(rows: Iterable[TaskRow]) -> list[TaskRow]:
    """What runs first, then what waits, by its expected start, then what has ended, the latest first."""

    def place(row: TaskRow) -> tuple[int, float, str, int, int, str]:
        start = row.expected_start.timestamp() if row.expected_start else float("inf")
        number = int("".join(filter(str.isdigit, row.job.partition("_")[0])) or 0)
        return _rank(row.state), start, row.queue if row.place else "", row.place, number, row.task

    rows = sorted(rows, key=place)
    ended = sorted((row for row in rows if row.state in ENDED), key=lambda row: row.ended, reverse=True)
    return [*(row for row in rows if row.state not in ENDED), *ended]


class RowFilter(msgspec.Struct, frozen=True):
    """Which rows are wanted; empty: all."""

    queues: Collection[str] = ()
    states: Collection[str] = ()
    name: str = ""
    """Part of the task's name, in any case."""

    def accepts(self, row: TaskRow) -> bool:
        return (
            (not self.queues or row.queue in self.queues)
            and (not self.states or row.state in self.states)
            and self.name.lower() in row.name.lower()
        )


def summary(rows: Sequence[TaskRow]) -> str:
    """``3 running, 12 pending``."""
    states = [row.state for row in rows]
    return ", ".join(f"{states.count(state):,} {state}" for state in sorted(set(states), key=_rank))
