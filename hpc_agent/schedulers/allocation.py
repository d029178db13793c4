"""What the scheduler has given to the job that asks, on the node where it asks, from the job's environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from hpc_agent.domain import duration

_TIME = re.compile(r"^#SBATCH\s+(?:--time[= ]|-t\s*)(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Allocation:
    """None: it is not known, or there is no limit."""

    cpus: float | None = None
    memory_mb: float | None = None
    nodes: int = 1


def allocation(environ: Mapping[str, str]) -> Allocation:
    """CPUs and memory are those that were asked for where that is known, else all that the node gives."""
    cpus = _number(environ, "SLURM_CPUS_PER_TASK") or _number(environ, "SLURM_CPUS_ON_NODE")
    return Allocation(
        # Outside a job: what the machine lets us use.
        cpus=cpus or float(len(os.sched_getaffinity(0))),
        memory_mb=_number(environ, "SLURM_MEM_PER_NODE") or _memory_of_cpus(environ),
        nodes=int(_number(environ, "SLURM_JOB_NUM_NODES") or 1),
    )


def time_limit_in(script: str) -> float | None:
    """Seconds that the first ``#SBATCH --time`` of a job script asks for, in the form that our templates write."""
    match = _TIME.search(script)
    if match is None:
        return None
    text = match[1]
    return float(text) * 60 if re.fullmatch(r"[0-9]{1,9}", text) else duration.seconds(text)


def _memory_of_cpus(environ: Mapping[str, str]) -> float | None:
    each, cpus = _number(environ, "SLURM_MEM_PER_CPU"), _number(environ, "SLURM_CPUS_ON_NODE")
    return each * (cpus or 1.0) if each else None


def _number(environ: Mapping[str, str], name: str) -> float | None:
    """0 is Slurm's word for all that the node has."""
    with suppress(ValueError):
        return float(environ.get(name, "")) or None
    return None
