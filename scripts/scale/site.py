"""Site of the benchmark: a real Slurm, a real server, and daemons that run in this process.

All jobs are held, so that what is measured is the way into Slurm and not what jobs do there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.bench import server

from hpc_agent.api.client import Client
from hpc_agent.clock import SYSTEM
from hpc_agent.config.load import load
from hpc_agent.config.settings import AllSettings
from hpc_agent.daemon.job_launch import JobLaunchConfig
from hpc_agent.daemon.loop import Daemon
from hpc_agent.daemon.loop_options import LoopOptions
from hpc_agent.daemon.options import DaemonOptions, JobNaming
from hpc_agent.domain.ids import QueueId, TaskId, WorkerId
from hpc_agent.schedulers import backends

SLURM_CLUSTER = Path(__file__).parents[1] / "slurm-cluster"
CONF = """
include "{server}"
hpc {{
    scheduler: slurm
    root: "{root}"
    max_jobs: 1000000
    envs.build_on: compute
    slurm {{ sbatch_args: ["--hold"], requests_per_second: 0 }}
    {more}
}}
"""


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """A Slurm of our own, found by the variables of this process."""
    base = [sys.executable, str(SLURM_CLUSTER)]
    where = ["--dir", str(folder)]
    started = subprocess.run([*base, "start", *where, "--json"], text=True, capture_output=True, check=False)
    if started.returncode:
        sys.exit(f"error: Slurm cannot be started here:\n{started.stderr}")
    before = dict(os.environ)
    os.environ.update(json.loads(started.stdout)["env"])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        subprocess.run([*base, "stop", *where], capture_output=True, check=False)


@dataclass(frozen=True)
class ScaleSite:
    """Folder of the site, and the server's own clearml.conf."""

    folder: Path
    server_conf: Path

    @property
    def client(self) -> Client:
        return Client(load(self.server_conf, {}).settings.api)

    def daemon(self, name: str, queue: QueueId, more: Sequence[str] = ()) -> tuple[Daemon, AllSettings]:
        """A daemon with run directories of its own. ``more``: further lines of the section ``hpc``."""
        conf = self.folder / f"{name}.conf"
        text = CONF.format(server=self.server_conf, root=self.folder / name, more="\n    ".join(more))
        conf.write_text(text, encoding="utf-8")
        conf.chmod(0o600)
        settings = load(conf, os.environ).settings
        naming = JobNaming(WorkerId(name), name)
        launch = JobLaunchConfig(conf, [sys.executable, "-m", "hpc_agent"], DaemonOptions(batch_system="slurm"), naming)
        scheduler = backends.choose(settings.hpc).create(settings.hpc, SYSTEM)
        options = LoopOptions((queue,), WorkerId(name))
        return Daemon(Client(settings.api), scheduler, settings, launch, options, SYSTEM), settings

    def enqueue(self, queue: QueueId, count: int) -> list[TaskId]:
        client = self.client
        tasks = []
        for number in range(count):
            fields = {"name": f"sweep {number}", "type": "training", "script": {"entry_point": "x.py", "diff": "1\n"}}
            tasks.append(client.tasks.create(fields))
            client.tasks.enqueue(tasks[-1], queue)
        return tasks


@contextmanager
def scale_site(folder: Path) -> Iterator[ScaleSite]:
    with slurm(folder / "slurm"), server(folder / "server") as (_, conf):
        yield ScaleSite(folder, conf)


def listed_jobs() -> int:
    """Jobs that Slurm has now, each element of an array one."""
    done = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i"], text=True, capture_output=True, check=True
    )
    return len(done.stdout.split())


def cancel_all() -> None:
    subprocess.run(["scancel", f"--user={os.getuid()}"], capture_output=True, check=True)


def goal(name: str, value: float, bound: float, *, at_least: bool = False) -> Mapping[str, object]:
    """A figure with its bound, as all benchmarks write them."""
    met = value >= bound if at_least else value <= bound
    return {"name": name, "value": round(value, 4), "bound": bound, "met": met}
