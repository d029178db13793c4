"""What commands cost: processor time of a real slurmctld for each kind, with as many jobs as the site has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import psutil
from scale.site import slurm
from slurm_cluster.layout import ACCOUNT

from hpc_agent.domain.ids import JobId
from hpc_agent.schedulers.slurm import commands

_CALLS = 50
_SLEEP = ("--hold", "--output=/dev/null", "--chdir=/", "--wrap=true")
_OTHERS = "nobody"
"""The user whose jobs are those of all other users."""


def slurm_costs(folder: Path, jobs: int, own: int) -> Mapping[str, float]:
    """Processor seconds of slurmctld (of slurmdbd for ``sacct``) for each command of a user who has ``own`` of all
    ``jobs``, which wait."""
    with slurm(folder):
        account = ["sacctmgr", "-i", "add", "user", _OTHERS, f"account={ACCOUNT}"]
        subprocess.run(account, check=True, capture_output=True)
        for number in range(jobs):
            whose = [] if number < own else [f"--uid={_OTHERS}"]
            subprocess.run(["sbatch", *whose, *_SLEEP], check=True, capture_output=True)
        user, since = str(os.getuid()), datetime.now(timezone.utc)
        controller, accounting = (_daemon(folder, name) for name in ("slurmctld", "slurmdbd"))
        ask = {
            "squeue": (controller, commands.squeue(user, "|")),
            "sbatch": (controller, ["sbatch", *_SLEEP]),
            "sacct": (accounting, commands.sacct(since, "|", jobs=[JobId("2")])),
        }
        return {name: _each(process, argv) for name, (process, argv) in ask.items() if process is not None}


def _daemon(folder: Path, name: str) -> psutil.Process | None:
    """None where the cluster has none."""
    pid = folder / "run" / f"{name}.pid"
    return psutil.Process(int(pid.read_text())) if pid.exists() else None


def _each(process: psutil.Process, argv: list[str]) -> float:
    before = _seconds(process)
    for _ in range(_CALLS):
        subprocess.run(argv, check=True, capture_output=True)
    return (_seconds(process) - before) / _CALLS


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
