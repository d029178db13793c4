"""What accounting knows of the CPUs and the memory that jobs used: for jobs whose agent could not say it itself."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from hpc_agent import process
from hpc_agent.config.settings import SlurmSettings
from hpc_agent.domain import duration
from hpc_agent.domain.efficiency import Efficiency, Share
from hpc_agent.errors import ProcessError, SchedulerUnavailableError
from hpc_agent.schedulers.job_environment import for_queries
from hpc_agent.schedulers.slurm_table import new_delimiter, read_table

_FIELDS = ("JobID", "ElapsedRaw", "TimelimitRaw", "TotalCPU", "MaxRSS", "AllocTRES", "JobName")
_JOBS_AT_ONCE = 1000
"""A command line of 20 kB."""
_KIB = {"": 1 / 1024, "K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}


@dataclass(frozen=True)
class AccountedUsage:
    """Use of one job. ``name``: the job's, by which others know whose it is."""

    name: str
    efficiency: Efficiency


def usage_of_jobs(jobs: Sequence[str], since: datetime, settings: SlurmSettings) -> dict[str, AccountedUsage]:
    """What sacct says of these jobs; nothing where there is no accounting.

    Raises:
        SchedulerUnavailableError: no usable answer.
    """
    if settings.accounting == "none" or shutil.which("sacct") is None:
        return {}
    found: dict[str, AccountedUsage] = {}
    for start in range(0, len(jobs), _JOBS_AT_ONCE):
        delimiter = new_delimiter()
        argv = sacct_usage(jobs[start : start + _JOBS_AT_ONCE], since, delimiter)
        try:
            answer = process.run(argv, timeout=settings.command_timeout, env=for_queries(os.environ))
        except ProcessError as error:
            raise SchedulerUnavailableError(f"sacct gave no information: {error}") from error
        if "accounting storage is disabled" in answer.stderr:
            return {}
        if not answer.ok:
            raise SchedulerUnavailableError(f"sacct ended with exit code {answer.returncode}: {answer.last_words}")
        found |= parse_usage(answer.stdout, delimiter)
    return found


def sacct_usage(jobs: Iterable[str], since: datetime, delimiter: str) -> list[str]:
    """With steps: only they have MaxRSS."""
    return [
        *("sacct", "--parsable", f"--delimiter={delimiter}", f"--format={','.join(_FIELDS)}"),
        f"--starttime={since.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}",
        f"--jobs={','.join(jobs)}",
    ]


def parse_usage(text: str, delimiter: str) -> dict[str, AccountedUsage]:
    """One entry per allocation; a cell that cannot be read is not measured."""
    table = read_table(text, len(_FIELDS), delimiter)
    if table is None:
        return {}
    largest: dict[str, float] = {}
    for job, _, _, _, rss, _, _ in table.rows:
        allocation, is_step, _ = job.partition(".")
        if is_step and (size := _kib(rss)) is not None:
            largest[allocation] = max(size, largest.get(allocation, 0.0))
    return {row[0]: _usage(row, largest.get(row[0])) for row in table.rows if "." not in row[0]}


def _usage(row: Sequence[str], largest_kib: float | None) -> AccountedUsage:
    _, elapsed, limit, cpu, _, tres, name = row
    given = dict(pair.split("=", 1) for pair in tres.split(",") if "=" in pair)
    seconds = float(elapsed) if elapsed.isdecimal() else 0.0
    nodes, asked_kib = _number(given.get("node")) or 1.0, _kib(given.get("mem", ""))
    used_cpu = cpu_seconds(cpu)
    memory = None
    if largest_kib is not None:
        memory = Share(largest_kib / 1024**2, asked_kib / 1024**2 / nodes if asked_kib else None)
    return AccountedUsage(
        name,
        Efficiency(
            cpus=Share(used_cpu / seconds, _number(given.get("cpu"))) if used_cpu is not None and seconds else None,
            memory=memory,
            seconds=Share(seconds, float(limit) * 60 if limit.isdecimal() and int(limit) else None),
        ),
    )


def cpu_seconds(text: str) -> float | None:
    """Of ``[D-[HH:]]MM:SS[.mmm]``."""
    whole, _, fraction = text.partition(".")
    seconds = duration.seconds(whole)
    return None if seconds is None else seconds + float(f"0.{fraction or 0}")


def _kib(text: str) -> float | None:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGT]?)", text.strip())
    return float(match[1]) * _KIB[match[2]] if match else None


def _number(text: str | None) -> float | None:
    return float(text) if text and text.isdecimal() else None


def by_name(usage: Mapping[str, AccountedUsage], job: str, names: Iterable[str]) -> Efficiency | None:
    """The use of a job, if it has one of these names' beginnings: ids are used again, and mean nothing elsewhere."""
    found = usage.get(job)
    return found.efficiency if found and found.name.startswith(tuple(names)) else None
