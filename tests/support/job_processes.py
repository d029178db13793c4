"""Processes of a task's job, on all nodes of the tests' Slurm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import psutil

from hpc_agent.domain.ids import TaskId


def job_processes(task: TaskId, **environ: str) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Each with its environment; ``environ``: variables that it must have."""
    # Not psutil.process_iter: it keeps objects of processes whose pid another one has by now, and will not kill that.
    for pid in psutil.pids():
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            found = process.environ()
            if task in found.get("SLURM_JOB_NAME", "") and environ.items() <= found.items():
                yield process, found
