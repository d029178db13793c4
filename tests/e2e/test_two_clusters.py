"""One queue, served by the daemons of two real clusters that share no folder and do not know each other."""

from __future__ import annotations

import collections
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Site
from waiting import contains, empty, wait_until

from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

pytestmark = [pytest.mark.slurm, pytest.mark.peers]

FULL = ("--exclusive", "--nodes=3", "--time=60", "--output=/dev/null", "--wrap=sleep 3600")
"""A job that has all of a cluster for an hour."""


@dataclass(frozen=True)
class ServedCluster:
    """A cluster of the queue and its daemon."""

    name: str
    site: Site
    conf: Path
    env: dict[str, str]

    def run(self, *argv: str) -> str:
        return subprocess.run(
            argv, env={**self.site.env, **self.env}, text=True, capture_output=True, timeout=60, check=True
        ).stdout

    def serve(self) -> None:
        self.site.daemon(log=f"{self.name}.log", CLEARML_CONFIG_FILE=str(self.conf), **self.env)

    def jobs(self) -> list[str]:
        return self.run("squeue", "-h", "-o", "%i %j %T").splitlines()

    @property
    def log(self) -> str:
        path = self.site.folder / f"{self.name}.log"
        return path.read_text() if path.exists() else ""

    def submitted(self, task: TaskId) -> bool:
        return re.search(rf"task\.submitted .*{task}", self.log) is not None

    def fill(self) -> str:
        """Have its nodes busy for an hour; returns the job."""
        job = self.run("sbatch", "--parsable", *FULL).strip()
        wait_until("its nodes to be busy", lambda: self.run("squeue", "-h", "-j", job, "-o", "%T"), contains("RUNNING"))
        return job


@pytest.fixture
def clusters(site: Site, slurm_cluster: Any, second_slurm_cluster: Any) -> Any:
    """By name; each with a root and a cache of its own."""

    def make(name: str, cluster: Any, lines: str) -> ServedCluster:
        conf = site.folder / f"{name}.conf"
        root = site.folder / name
        conf.write_text(
            f'include "{site.conf}"\n'
            f'hpc {{ cluster: "{name}", root: "{root}", cache_dir: "{root}/cache", scratch_dir: "{root}/scratch"\n'
            f'queues {{ "{site.queue}" {{ {lines} }} }} }}\n'
        )
        return ServedCluster(name, site, conf, {"SLURM_CONF": cluster.env["SLURM_CONF"]})

    made = []

    def both(lines: str) -> tuple[ServedCluster, ServedCluster]:
        made.extend([make("alpha", slurm_cluster, lines), make("beta", second_slurm_cluster, lines)])
        return made[0], made[1]

    yield both
    for cluster in made:
        for job in cluster.run("squeue", "-h", "-o", "%i").split():
            cluster.run("scancel", job)


def ledger_task(site: Site, clusters: int = 1) -> TaskId:
    """Appends a line with its job's cluster to a file that shows who ran it; ends once the file shows this many."""
    path = str(site.folder / "ledger")
    text = (
        "import os, time\n"
        f"with open({path!r}, 'a') as ledger:\n"
        "    ledger.write(os.environ['CLEARML_TASK_ID'] + ' ' + os.environ['SLURM_CONF'] + '\\n')\n"
        f"while len({{line.split()[1] for line in open({path!r})}}) < {clusters}:\n"
        "    time.sleep(0.2)\n"
    )
    return site.bare_task(text)


def ledger(site: Site) -> list[list[str]]:
    path = site.folder / "ledger"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_each_task_of_one_queue_runs_once_on_one_of_two_clusters(site: Site, clusters: Any) -> None:
    # No cluster may have all eight, and none ends before the other cluster has begun one.
    alpha, beta = clusters("shared: true, max_jobs: 5")
    tasks = [ledger_task(site, clusters=2) for _ in range(8)]
    alpha.serve()
    beta.serve()
    for task in tasks:
        assert site.wait_for_end(task) is TaskStatus.COMPLETED
    runs = ledger(site)
    assert sorted(task for task, _ in runs) == sorted(tasks)
    ran_on = collections.Counter(conf for _, conf in runs)
    assert set(ran_on) == {alpha.env["SLURM_CONF"], beta.env["SLURM_CONF"]}, ran_on
    for cluster in (alpha, beta):
        wait_until(f"the jobs of {cluster.name} to leave", cluster.jobs, empty)


def test_a_task_goes_to_the_cluster_where_it_would_start_first(site: Site, clusters: Any) -> None:
    alpha, beta = clusters("shared: true, head_start: 600")
    alpha.fill()
    alpha.serve()
    task = ledger_task(site)
    wait_until("its message", lambda: site.message(task), contains("left to other clusters of its queue for "))
    assert re.match(r"alpha: .* here it would start at 20\d\d-\d\d-\d\d \d\d:\d\d UTC", site.message(task))
    beta.serve()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert ledger(site) == [[task, beta.env["SLURM_CONF"]]]
    assert not alpha.submitted(task)


def test_a_cluster_takes_a_task_that_no_other_started_within_its_head_start(site: Site, clusters: Any) -> None:
    alpha, _ = clusters("shared: true, head_start: 3")
    full = alpha.fill()
    alpha.serve()
    task = ledger_task(site)
    wait_until("its job", lambda: site.jobs(task))
    assert "start.estimated" in alpha.log
    wait_until("its message", lambda: site.message(task), contains("alpha: Slurm job "))
    alpha.run("scancel", full)
    assert site.wait_for_end(task) is TaskStatus.COMPLETED


def test_a_task_that_one_cluster_refuses_is_left_to_the_other(site: Site, clusters: Any) -> None:
    alpha, beta = clusters("shared: true, overrides { constraint {} }")
    tools = site.folder / "tools"
    tools.mkdir()
    real = shutil.which("sbatch")
    (tools / "sbatch").write_text(
        '#!/bin/sh\necho "sbatch: error: invalid partition specified: gpu" >&2\n'
        f'[ "$1" = --version ] && exec {real} --version\nexit 1\n'
    )
    (tools / "sbatch").chmod(0o755)
    alpha.env["PATH"] = f"{tools}:{site.env['PATH']}"
    alpha.serve()
    task = ledger_task(site)
    wait_until("its message", lambda: site.message(task), contains("alpha: left to other clusters of its queue: "))
    assert "invalid partition specified: gpu" in site.message(task)
    assert site.status(task) is TaskStatus.QUEUED
    beta.serve()
    assert site.wait_for_end(task) is TaskStatus.COMPLETED
    assert ledger(site) == [[task, beta.env["SLURM_CONF"]]]


def test_a_head_start_without_other_clusters_is_a_mistake(site: Site) -> None:
    site.configure(f'hpc {{ queues {{ "{site.queue}" {{ head_start: 60 }} }} }}')
    answer = site.agent("daemon", "--queue", site.queue, "--once")
    assert answer.returncode == 2
    assert "head_start leaves tasks to other clusters: set shared to true too, or remove it" in answer.stderr
