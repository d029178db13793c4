"""Pilots: one Slurm job runs many tasks of a queue, and none of them notices, whatever becomes of the pilot."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from e2e_site import UNTIL_GO, Site
from waiting import contains, empty, equals, wait_until

from hpc_agent.daemon.pilot_queues import pilot_name
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm]

ENDED = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.STOPPED)
SHORT = """
import os, time
print("started at", time.time(), "gpus", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
time.sleep({seconds})
print("ended at", time.time(), flush=True)
"""
LEDGER = """
import os, sys, time
with open({ledger!r}, "a") as ledger:
    ledger.write("begun\\n")
print("begun", flush=True)
while not os.path.exists({go!r}):
    time.sleep(0.1)
with open({ledger!r}, "a") as ledger:
    ledger.write("over\\n")
print("over", flush=True)
"""
"""Writes down each run of itself."""


def in_pilots(
    site: Site, *, cpus: int = 2, gpus: int = 0, most: int = 1, idle: float = 3, minutes: int = 10, task: int = 1
) -> None:
    """Have the site's queue served by pilots of this size, tasks of one CPU and ``task`` minutes each."""
    site.configure(
        f"""
hpc.queues."{site.queue}" {{
    mode: pilot
    resources {{ num_cpus: 1, memory_gb: 0.5, time_limit: {task} }}
    pilot {{
        resources {{ num_cpus: {cpus}, memory_gb: {cpus / 2}, num_gpus: {gpus}, time_limit: {minutes} }}
        max_pilots: {most}
        idle_time: {idle}
    }}
}}
"""
    )


def pilots(site: Site, *states: str) -> list[str]:
    """Ids of the site's pilots in Slurm's list."""
    rows = [row.split() for row in site.slurm("squeue", "-h", "-o", "%i %T %j").splitlines()]
    return [id for id, state, name in rows if name == pilot_name(site.queue) and (not states or state in states)]


def all_pilots(site: Site) -> set[str]:
    """Those of before, too."""
    rows = site.slurm("sacct", "-nXP", "-o", "JobID,JobName", "--name", pilot_name(site.queue)).splitlines()
    return {row.partition("|")[0] for row in rows}


def wait_for_all(site: Site, tasks: Sequence[TaskId]) -> list[TaskStatus]:
    found = wait_until(
        "all to end",
        lambda: [state.status for state in site.client.tasks.get_states(list(tasks)).values()],
        lambda statuses: all(status in ENDED for status in statuses),
        timeout=480,
    )
    return list(found)


def times(site: Site, task: TaskId) -> tuple[float, float]:
    lines = site.lines(task)
    return tuple(float(next(l for l in lines if l.startswith(word)).split()[2]) for word in ("started", "ended"))  # type: ignore[return-value]


def ended_pilot(site: Site) -> None:
    """Nothing is left for the next test."""
    wait_until("the pilots to end", lambda: pilots(site), empty)


def test_many_short_tasks_run_in_one_job(site: Site) -> None:
    in_pilots(site)
    tasks = [site.bare_task(SHORT.format(seconds=1)) for _ in range(12)]
    site.daemon()
    assert wait_for_all(site, tasks) == [TaskStatus.COMPLETED] * 12
    jobs = {job for task in tasks for job in site.submitted(task)}
    assert len(jobs) == 12
    assert all(job.startswith("p") for job in jobs), jobs
    ended_pilot(site)
    assert len(all_pilots(site)) == 1
