"""sacct's answer about the CPUs and the memory that jobs used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from hpc_agent.domain import duration
from hpc_agent.domain.efficiency import Efficiency, Used
from hpc_agent.schedulers.inspector import AccountedUsage
from hpc_agent.schedulers.slurm.delimited_table import read_table

_FIELDS = ("JobID", "ElapsedRaw", "TimelimitRaw", "TotalCPU", "MaxRSS", "AllocTRES", "JobName")
_KIB = {"": 1 / 1024, "K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}


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
        memory = Used(largest_kib / 1024**2, asked_kib / 1024**2 / nodes if asked_kib else None)
    return AccountedUsage(
        name,
        Efficiency(
            cpus=Used(used_cpu / seconds, _number(given.get("cpu"))) if used_cpu is not None and seconds else None,
            memory=memory,
            seconds=Used(seconds, float(limit) * 60 if limit.isdecimal() and int(limit) else None),
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
