"""The daemon on a machine without Slurm: a whole ClearML agent, flag by flag."""

from __future__ import annotations

import pytest
from e2e_site import Site, wait_for

from hpc_agent.domain.status import TaskStatus

SEEN = """
import os
for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CLEARML_WORKER_ID", "CLEARML_LOG_LEVEL"):
    print(name, os.environ.get(name))
print("debug", __debug__)
"""
HOLD = SEEN + """
import time
print("begun", flush=True)
time.sleep(300)
"""


def seen(site: Site, task, name: str) -> str | None:
    lines = dict(line.partition(" ")[::2] for line in site.console(task).splitlines())
    return lines.get(name)


def test_a_task_runs_and_has_all_gpus(machine: Site) -> None:
    task = machine.bare_task(SEEN)
    machine.daemon()
    assert machine.wait_for_end(task) is TaskStatus.COMPLETED
    assert seen(machine, task, "CUDA_VISIBLE_DEVICES") == "0,1,2,3"
    assert seen(machine, task, "CLEARML_WORKER_ID") == f"box:0:{task}"
    assert seen(machine, task, "debug") == "True"
