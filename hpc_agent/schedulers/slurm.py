"""Slurm's commands as argument lists, and what they print as types. Pure; ``slurm_driver`` runs them.

Checked on Slurm 22.05; formats used here exist since 20.02. Text, not JSON: squeue ignores filters with ``--json``
until 24.05, and it is a hundred times longer (slurm.md section 4).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from hpc_agent.domain import duration
from hpc_agent.domain.ids import JobId
from hpc_agent.domain.job import JobRecord, JobState, LiveJob, OwnJob
from hpc_agent.schedulers.base import CLOCK_SKEW, SubmitRequest

_FOLDED = {
    # Flags that squeue shows in place of a state, none of them final (slurm.md section 1).
    "CONFIGURING": JobState.RUNNING,
    "POWER_UP_NODE": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "UPDATE_DB": JobState.RUNNING,
    "STAGE_OUT": JobState.COMPLETING,
    "STOPPED": JobState.SUSPENDED,
    "RESV_DEL_HOLD": JobState.PENDING,
    "EXPEDITING": JobState.REQUEUED,
    "LAUNCH_FAILED": JobState.REQUEUED,
    "RECONFIG_FAIL": JobState.REQUEUED,
    "REQUEUE_FED": JobState.REQUEUED,
    "REQUEUE_HOLD": JobState.REQUEUED,
    "SPECIAL_EXIT": JobState.REQUEUED,
}


def state(word: str) -> JobState:
    """The state behind one of Slurm's words (``RUNNING``, ``CANCELLED by 1000``); UNKNOWN for one nobody knows."""
    first = word.split(" ", 1)[0].rstrip("+")
    return _FOLDED.get(first) or (JobState(first) if first in JobState.__members__ else JobState.UNKNOWN)


def time(text: str) -> datetime | None:
    """A time as printed under ``environment.for_queries``; None for ``N/A``, ``Unknown``, ``None``."""
    if text.isdigit():
        return datetime.fromtimestamp(int(text), timezone.utc)
    try:
        # A version or wrapper that does not know SLURM_TIME_FORMAT; TZ is UTC.
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


# ---------------------------------------------------------------- sbatch, scancel, scontrol


def sbatch(request: SubmitRequest, extra: Sequence[str] = ()) -> list[str]:
    return [
        "sbatch",
        "--parsable",
        f"--job-name={request.job_name}",
        f"--chdir={request.workdir}",
        f"--output={_literally(str(request.output))}",
        # The default truncates the log when a job is requeued.
        "--open-mode=append",
        *extra,
        str(request.script),
    ]


def _literally(path: str) -> str:
    """A path in which nothing stands for anything else: ``%`` begins a job field, and a backslash turns that off for
    the whole path (22.05)."""
    return path.replace("\\", "\\\\") if "\\" in path else path.replace("%", "%%")


def scancel(jobs: Iterable[JobId], *, only_pending: bool = False, cluster: str = "") -> list[str]:
    pending = ["--state=PENDING"] if only_pending else []
    return ["scancel", *pending, *([f"--clusters={cluster}"] if cluster else []), *jobs]


_GONE = re.compile(r"Invalid job id specified|already completing or completed", re.IGNORECASE)


def cancelled(returncode: int, stderr: str) -> bool:
    """Whether scancel did what can be done: exit code 1 where it only complains of jobs that are gone."""
    complaints = [line for line in stderr.splitlines() if line.strip()]
    return returncode == 0 or (bool(complaints) and all(_GONE.search(line) for line in complaints))


def release(jobs: Iterable[JobId]) -> list[str]:
    return ["scontrol", "release", *jobs]


def requeue(job: JobId) -> list[str]:
    return ["scontrol", "requeue", job]


def show_job(job: JobId) -> list[str]:
    return ["scontrol", "--oneliner", "show", "job", job]


def parse_own_job(text: str) -> OwnJob:
    """``scontrol show job`` of one job, asked from inside it.

    Raises:
        ValueError: this is not what scontrol prints.
    """
    # Further words of a name, or of a comment, could look like any field.
    fields = dict(re.findall(r"(?:^| )(JobState|Reason|Restarts|RunTime|TimeLimit|PreemptTime)=(\S+)", text))
    if "JobState" not in fields:
        raise ValueError(f"not a job of scontrol: {text.strip()[:200]}")
    return OwnJob(
        state=state(fields["JobState"]),
        reason=_without_none(fields.get("Reason", "")),
        restarts=int(fields.get("Restarts") or 0),
        ran_for=duration.seconds(fields.get("RunTime", "")) or 0,
        time_limit=duration.seconds(fields.get("TimeLimit", "")),
        preempted=fields.get("PreemptTime", "None") != "None",
    )


def show_config() -> list[str]:
    return ["scontrol", "show", "config"]


def parse_config(text: str) -> dict[str, str]:
    """``scontrol show config`` as a mapping (``ClusterName``, ``MinJobAge`` …)."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


# ---------------------------------------------------------------- squeue

_COLUMNS: Mapping[str, int] = {
    "JobArrayID": 32,
    "State": 24,
    "RestartCnt": 8,
    "SubmitTime": 24,
    "StartTime": 24,
    "EndTime": 24,
    "exit_code": 12,
    "NodeList": 128,
    "Reason": 128,
    # Last, because a name may hold anything, and its width counts bytes.
    "Name": 256,
}


@dataclass(frozen=True)
class QueueRow:
    """One line of squeue."""

    id: JobId
    word: str
    restarts: int
    submitted: datetime | None
    start: datetime | None
    end: datetime | None
    wait_status: int
    nodes: str
    reason: str
    name: str


def squeue(user: str, *, ended: bool = False, name: str = "") -> list[str]:
    """All jobs of a user, one line for each array element; ``ended`` adds those of the last MinJobAge (300 s)."""
    columns = ",".join(f"{column}:{width}" for column, width in _COLUMNS.items())
    # --all: jobs of hidden partitions, and those that another cluster of a federation has. Without it they look ended.
    argv = ["squeue", "--noheader", "--all", "--array", f"--user={user}", f"--Format={columns}"]
    # No --jobs: squeue exits 1 for one unknown id, 0 for two.
    return argv + (["--states=all"] if ended else []) + ([f"--name={name}"] if name else [])


def parse_squeue(text: str) -> list[QueueRow]:
    """
    Raises:
        ValueError: this is not what squeue prints.
    """
    return [_queue_row(line) for line in text.splitlines() if line.strip()]


def _queue_row(line: str) -> QueueRow:
    cells, rest = [], line
    for width in list(_COLUMNS.values())[:-1]:
        cells.append(rest[:width].strip())
        rest = rest[width:]
    job, word, restarts, submitted, start, end, status, nodes, reason = cells
    if not re.fullmatch(r"\d+([_+]\d+)?", job) or not restarts.isdigit() or not status.isdigit():
        raise ValueError(f"not a line of squeue: {line.strip()[:200]}")
    times = (time(submitted), time(start), time(end))
    return QueueRow(JobId(job), word, int(restarts), *times, int(status), nodes, reason, rest.strip())


def live_job(row: QueueRow) -> LiveJob:
    """A row of squeue as a job that is still there."""
    waits = state(row.word) in (JobState.PENDING, JobState.REQUEUED)
    return LiveJob(
        id=row.id,
        name=row.name,
        state=state(row.word),
        raw_state=row.word,
        reason=row.reason if waits and row.reason != "None" else "",
        expected_start=row.start if waits else None,
        nodes=row.nodes,
        restarts=row.restarts,
    )


def ended_job(row: QueueRow) -> JobRecord:
    """A row of squeue as a record. squeue's exit_code is a wait status: 256 × code + signal."""
    return JobRecord(
        id=row.id,
        state=state(row.word),
        raw_state=row.word,
        name=row.name,
        exit_code=row.wait_status >> 8,
        signal=row.wait_status & 0x7F,
        submitted=row.submitted,
        started=row.start,
        ended=row.end,
        nodes=row.nodes,
        reason=_without_none(row.reason),
    )


# ---------------------------------------------------------------- sacct

_RECORD_FIELDS = (
    *("JobID", "JobIDRaw", "State", "ExitCode", "Submit", "Start", "End", "Timelimit", "NodeList", "Reason"),
    # Last, because a name may hold anything.
    "JobName",
)


def sacct(since: datetime, *, jobs: Iterable[JobId] = (), name: str = "", user: str = "") -> list[str]:
    """The records of some jobs, or of all jobs of one name; ``since`` bounds the search (by default it is today)."""
    return [
        *("sacct", "--allocations", "--parsable2", "--noheader", f"--format={','.join(_RECORD_FIELDS)}"),
        # Read under TZ=UTC.
        f"--starttime={since.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}",
        *([f"--jobs={','.join(jobs)}"] if jobs else []),
        *([f"--name={name}"] if name else []),
        *([f"--user={user}"] if user else []),
    ]


def parse_sacct(text: str) -> Iterator[tuple[JobId, JobRecord]]:
    """Each record with its raw id; the record's own id is ``123_4`` for an array element.

    Raises:
        ValueError: this is not what sacct prints.
    """
    for line in text.splitlines():
        cells = line.split("|", len(_RECORD_FIELDS) - 1)
        if len(cells) != len(_RECORD_FIELDS) or not re.fullmatch(r"\d+:\d+", cells[3]):
            raise ValueError(f"not a line of sacct: {line[:200]}")
        job, raw, word, exit_code, submit, start, end, limit, nodes, reason, name = cells
        code, signal = exit_code.split(":")
        yield (
            JobId(raw),
            JobRecord(
                id=JobId(job),
                state=state(word),
                raw_state=word,
                # For the first seconds slurmdbd has no name and sacct says this; checked on 22.05.
                name="" if name == "allocation" else name,
                exit_code=int(code),
                signal=int(signal),
                submitted=time(submit),
                started=time(start),
                ended=time(end),
                nodes="" if nodes == "None assigned" else nodes,
                reason=_without_none(reason),
                cancelled_by=word.partition(" by ")[2],
                time_limit=duration.seconds(limit),
            ),
        )


def _without_none(text: str) -> str:
    return "" if text == "None" else text


def newest_of_name(records: Iterable[JobRecord], name: str, since: datetime) -> JobId | None:
    """The job last submitted under this name, not before ``since``."""
    earliest = since - CLOCK_SKEW
    ours = [(r.submitted, r.id) for r in records if r.name == name and r.submitted and r.submitted >= earliest]
    return max(ours)[1] if ours else None


def newest(records: Iterable[tuple[JobId, JobRecord]], jobs: Mapping[JobId, datetime]) -> dict[JobId, JobRecord]:
    """For each of our jobs its newest record, if that is ours.

    A record submitted before our own submission is of an earlier job with the same id. A newest record that is not
    final (the job was requeued, or accounting lags) says that there is no verdict yet.
    """
    found: dict[JobId, JobRecord] = {}
    for raw, record in records:
        job = record.id if record.id in jobs else raw
        if job not in jobs or record.submitted is None or record.submitted < jobs[job] - CLOCK_SKEW:
            continue
        known = found.get(job)
        if known is None or known.submitted is None or record.submitted >= known.submitted:
            found[job] = record
    return found
