"""Answers of squeue, sacct, scancel and scontrol as types; ``sbatch_answers`` has those of sbatch. Pure.

A cell that cannot be read is unknown (None, empty, ``JobState.UNKNOWN``), and affects only itself. Checked on
Slurm 20.11, 22.05, 24.11 and 26.05 (docs/internals/slurm.md#versions).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone

import msgspec

from hpc_agent.domain import duration
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import CurrentJob, JobRecord, JobState, LiveJob
from hpc_agent.schedulers.slurm.commands import OWN_JOB_COLUMNS, SACCT_FIELDS, SQUEUE_COLUMNS
from hpc_agent.schedulers.slurm.delimited_table import read_table
from hpc_agent.schedulers.slurm.versions import STATES_SHOWN_FOR_OTHERS, exit_status
from hpc_agent.schedulers.slurm.wait_reasons import meaning, readable


def state(word: str) -> JobState:
    """The state behind one of Slurm's words (``RUNNING``, ``CANCELLED by 1000``); UNKNOWN for any other."""
    first = word.partition(" ")[0].rstrip("+")
    return STATES_SHOWN_FOR_OTHERS.get(first) or (
        JobState(first) if first in JobState.__members__ else JobState.UNKNOWN
    )


def time(text: str) -> datetime | None:
    """A time as printed under ``for_queries``; None for ``N/A``, ``Unknown``, ``None``."""
    try:
        if re.fullmatch(r"[0-9]+", text):
            return datetime.fromtimestamp(int(text), timezone.utc)
        # A version or wrapper that does not know SLURM_TIME_FORMAT; TZ is UTC.
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


def parse_config(text: str) -> dict[str, str]:
    """``scontrol show config`` as a mapping (``ClusterName``, ``MinJobAge`` …); other lines are passed over."""
    return {match[1]: match[2].strip() for match in re.finditer(r"^(\w+) *=(.*)$", text, re.MULTILINE)}


_GONE = re.compile(r"Invalid job id specified|already completing or completed", re.IGNORECASE)


def cancelled(returncode: int, stderr: str) -> bool:
    """Whether scancel did what can be done: exit code 1 where it only complains of jobs that are gone."""
    complaints = [line for line in stderr.splitlines() if line.strip()]
    return returncode == 0 or (bool(complaints) and all(_GONE.search(line) for line in complaints))


class QueueRow(msgspec.Struct, frozen=True):
    """One row of squeue. None: the cell was not readable, or there is no such thing yet."""

    id: JobId
    word: str
    restarts: int | None
    submitted: datetime | None
    start: datetime | None
    end: datetime | None
    exit_status: tuple[int, int] | None
    nodes: str
    reason: str
    name: str


class QueueAnswer(msgspec.Struct, frozen=True):
    """Answer of squeue."""

    rows: tuple[QueueRow, ...]
    unreadable: int
    """Rows whose job is not known. Any job that is in no other row may be in one of these."""


def parse_squeue(text: str, delimiter: str) -> QueueAnswer:
    """
    Raises:
        ValueError: this is not what squeue prints.
    """
    table = read_table(text, len(SQUEUE_COLUMNS), delimiter)
    if table is None:
        raise ValueError(_in_short(text))
    rows = tuple(_queue_row(cells) for cells in table.rows if JOB_ID.fullmatch(cells[0]))
    return QueueAnswer(rows, len(table.rows) - len(rows) + table.broken)


def _queue_row(cells: Sequence[str]) -> QueueRow:
    job, word, restarts, submitted, start, end, status, nodes, reason, name = cells
    count = int(restarts) if re.fullmatch(r"[0-9]{1,9}", restarts) else None
    times = (time(submitted), time(start), time(end))
    return QueueRow(JobId(job), word, count, *times, exit_status(status), nodes, reason, name)


def live_job(row: QueueRow) -> LiveJob:
    """A row of squeue as a job that is still there."""
    waits = state(row.word) in (JobState.PENDING, JobState.REQUEUED)
    reason = readable(row.reason) if waits and row.reason != "None" else ""
    return LiveJob(
        id=row.id,
        name=row.name,
        state=state(row.word),
        raw_state=row.word,
        reason=reason,
        expected_start=row.start if waits else None,
        nodes=row.nodes,
        restarts=row.restarts or 0,
        submitted=row.submitted,
        waits=meaning(reason, row.id),
    )


def ended_job(row: QueueRow) -> JobRecord:
    """A row of squeue as a record."""
    code, signal = row.exit_status or (None, 0)
    return JobRecord(
        id=row.id,
        state=state(row.word),
        raw_state=row.word,
        name=row.name,
        exit_code=code,
        signal=signal,
        submitted=row.submitted,
        started=row.start,
        ended=row.end,
        nodes=row.nodes,
        reason=_without_none(row.reason),
    )


def parse_own_job(text: str, delimiter: str) -> CurrentJob:
    """
    Raises:
        ValueError: this is not what squeue prints of one job.
    """
    table = read_table(text, len(OWN_JOB_COLUMNS), delimiter)
    if table is None or len(table.rows) != 1:
        raise ValueError(f"not one job of squeue: {_in_short(text)}")
    _, word, restarts, ran, limit, preempted, reason = table.rows[0]
    return CurrentJob(
        state=state(word),
        reason=_without_none(reason),
        restarts=int(restarts) if re.fullmatch(r"[0-9]{1,9}", restarts) else 0,
        ran_for=duration.seconds(ran) or 0,
        time_limit=duration.seconds(limit),
        preempted=time(preempted) is not None,
    )


class AccountingAnswer(msgspec.Struct, frozen=True):
    """Answer of sacct: each record with its raw id; the record's own id is ``123_4`` for an array element."""

    records: tuple[tuple[JobId, JobRecord], ...]
    unreadable: int
    """Rows whose job is not known. Any job that is in no other row may be in one of these."""


def parse_sacct(text: str, delimiter: str) -> AccountingAnswer:
    """
    Raises:
        ValueError: this is not what sacct prints.
    """
    table = read_table(text, len(SACCT_FIELDS), delimiter)
    if table is None:
        raise ValueError(_in_short(text))
    records = tuple(
        (JobId(cells[1]), _record(cells))
        for cells in table.rows
        if JOB_ID.fullmatch(cells[0]) and JOB_ID.fullmatch(cells[1])
    )
    return AccountingAnswer(records, len(table.rows) - len(records) + table.broken)


def _record(cells: Sequence[str]) -> JobRecord:
    job, _, word, status, submit, start, end, limit, nodes, reason, name = cells
    code, signal = exit_status(status) or (None, 0)
    return JobRecord(
        id=JobId(job),
        state=state(word),
        raw_state=word,
        # For the first seconds slurmdbd has no name and sacct says this; checked on 22.05.
        name="" if name == "allocation" else name,
        exit_code=code,
        signal=signal,
        submitted=time(submit),
        started=time(start),
        ended=time(end),
        nodes="" if nodes == "None assigned" else nodes,
        reason=_without_none(reason),
        cancelled_by=word.partition(" by ")[2],
        time_limit=duration.seconds(limit),
    )


JOB_ID = re.compile(
    r"[0-9]{1,19}([_+][0-9]{1,19})?"
    # sacct has one row for all elements of an array that wait: 7_[2-3%1], 7_[1,3,5,...].
    r"|[0-9]{1,19}_\[[0-9,%:.-]*\]"
)


WOULD_START = re.compile(
    r"to start at (?P<start>\S+)(?: a)?(?: using \S+ processors)?"
    r"(?: on (?:nodes )?(?P<nodes>\S+))?(?: in partition (?P<partition>\S+))?"
)
"""What ``sbatch --test-only`` says: ``Job 7 to start at 2026-01-31T12:00:00 using 1 processors on nodes n1 in partition
main``. 20.11 has no partition and no ``nodes``; from 26.05 on an ``a`` follows the time."""


def _in_short(text: str) -> str:
    return text.strip()[:200] or "nothing"


def _without_none(text: str) -> str:
    return "" if text == "None" else text
