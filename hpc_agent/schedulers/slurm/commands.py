"""Slurm's commands as argument lists; ``answers`` reads what they print. Pure; ``driver`` runs them.

Checked on Slurm 20.11, 22.05, 24.11 and 26.05 (docs/internals/slurm.md#versions). Text, not JSON:
squeue ignores filters with ``--json`` until 24.05, and it is a hundred times longer (docs/internals/slurm.md#answers).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone

from hpc_agent.domain.ids import JobId
from hpc_agent.schedulers.base import SubmitRequest
from hpc_agent.schedulers.job_environment import scrubbed


def for_queries(environ: Mapping[str, str]) -> dict[str, str]:
    """``scrubbed``, and times are printed as seconds since 1970; not for sbatch, whose jobs would inherit that."""
    return {**scrubbed(environ), "SLURM_TIME_FORMAT": "%s", "TZ": "UTC", "LC_ALL": "C.UTF-8"}


# ---------------------------------------------------------------- sbatch, scancel, scontrol


class ArrayRequest(SubmitRequest, frozen=True, kw_only=True):
    """An array. Each element has a folder in ``workdir``, named by its index, where it finds its ``output``."""

    elements: int
    running: int = 0
    """Elements that run at the same time at most; 0: no limit."""


def sbatch(request: SubmitRequest, extra: Sequence[str] = (), *, parsable: bool = True) -> list[str]:
    array = []
    output = _literally(str(request.output))
    if isinstance(request, ArrayRequest):
        array = [f"--array=0-{request.elements - 1}{f'%{request.running}' if request.running else ''}"]
        output = f"{_literally(str(request.workdir))}/%a/{_literally(request.output.name)}"
    return [
        "sbatch",
        *(["--parsable"] if parsable else []),
        f"--job-name={request.job_name}",
        f"--chdir={request.workdir}",
        *array,
        f"--output={output}",
        # The default truncates the log when a job is requeued.
        "--open-mode=append",
        *extra,
        str(request.script),
    ]


def _literally(path: str) -> str:
    """A path without replacements: ``%`` begins a job field, and a backslash turns that off for
    the whole path (22.05)."""
    return path.replace("\\", "\\\\") if "\\" in path else path.replace("%", "%%")


def scancel(jobs: Iterable[JobId], *, only_pending: bool = False, cluster: str = "", name: str = "") -> list[str]:
    """With ``name`` scancel itself leaves jobs of other names alone, without a word; checked on 22.05."""
    pending = ["--state=PENDING"] if only_pending else []
    elsewhere = [f"--clusters={cluster}"] if cluster else []
    return ["scancel", *pending, *elsewhere, *([f"--name={name}"] if name else []), *jobs]


def squeue_name(job: JobId, cluster: str) -> list[str]:
    """The name of one job on another cluster, on a line of its own."""
    return ["squeue", f"--clusters={cluster}", "--noheader", "--all", "--states=all", f"--jobs={job}", "--format=%j"]


def sbatch_test(words: Sequence[str], extra: Sequence[str] = ()) -> list[str]:
    """Whether sbatch would accept these words, and when such a job would start. Nothing is submitted."""
    return ["sbatch", "--test-only", *extra, *words]


def release(jobs: Iterable[JobId]) -> list[str]:
    return ["scontrol", "release", *jobs]


def requeue(job: JobId) -> list[str]:
    return ["scontrol", "requeue", job]


def show_job(job: str) -> list[str]:
    return ["scontrol", "show", "job", job]


def show_config() -> list[str]:
    return ["scontrol", "show", "config"]


# ---------------------------------------------------------------- squeue

SQUEUE_COLUMNS: Mapping[str, int] = {
    "JobArrayID": 32,
    "State": 24,
    "RestartCnt": 8,
    "SubmitTime": 24,
    "StartTime": 24,
    "EndTime": 24,
    "exit_code": 12,
    "NodeList": 128,
    "Reason": 128,
    "Name": 256,
}
"""Each with the width at which squeue cuts it."""


def squeue(user: str, delimiter: str, *, ended: bool = False, name: str = "") -> list[str]:
    """All jobs of a user, one row for each array element; ``ended`` adds those of the last MinJobAge (300 s)."""
    columns = ",".join(f"{column}:{width}{delimiter}" for column, width in SQUEUE_COLUMNS.items())
    # --all: jobs of hidden partitions, and those that another cluster of a federation has. Without it they look ended.
    argv = ["squeue", "--all", "--array", f"--user={user}", f"--Format={columns}"]
    # No --jobs: squeue exits 1 for one unknown id, 0 for two.
    return argv + (["--states=all"] if ended else []) + _only_named(name)


def _only_named(name: str) -> list[str]:
    """To squeue and sacct a comma separates names: the reader of the answer has to pick out jobs with one in theirs."""
    return [f"--name={name}"] if name and "," not in name else []


OWN_JOB_COLUMNS: Mapping[str, int] = {
    "JobArrayID": 32,
    "State": 24,
    "RestartCnt": 8,
    "TimeUsed": 24,
    "TimeLimit": 24,
    "PreemptTime": 24,
    "Reason": 128,
}


def squeue_own(job: JobId, delimiter: str) -> list[str]:
    """The job that asks, as long as the controller remembers it."""
    columns = ",".join(f"{column}:{width}{delimiter}" for column, width in OWN_JOB_COLUMNS.items())
    return ["squeue", "--all", "--states=all", f"--jobs={job}", f"--Format={columns}"]


# ---------------------------------------------------------------- sacct

SACCT_FIELDS = (
    *("JobID", "JobIDRaw", "State", "ExitCode", "Submit", "Start", "End", "Timelimit", "NodeList", "Reason"),
    "JobName",
)


def sacct(since: datetime, delimiter: str, *, jobs: Iterable[JobId] = (), name: str = "", user: str = "") -> list[str]:
    """The records of some jobs, or of all jobs of one name; ``since`` bounds the search (by default it is today)."""
    return [
        # With --parsable, not --parsable2, the last cell has its delimiter too.
        *("sacct", "--allocations", "--parsable", f"--delimiter={delimiter}"),
        f"--format={','.join(SACCT_FIELDS)}",
        # Read under TZ=UTC.
        f"--starttime={since.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}",
        *([f"--jobs={','.join(jobs)}"] if jobs else []),
        *_only_named(name),
        *([f"--user={user}"] if user else []),
    ]
