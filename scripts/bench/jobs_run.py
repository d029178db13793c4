"""Benchmark of ``scripts/bench/jobs``: ``hpc-agent jobs`` with many jobs in a real Slurm, tasks on a real server.

Tasks, queue entries, jobs (held, under our names) and run directories are real. A first look has one job only: what it
takes is the start of the program and the way to the server and back. Slurm's commands are counted by scripts that are
before them on PATH. Only an otherwise idle machine gives figures.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.arguments import positive
from faults.bench import environment, server
from scale.site import goal

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.attempt import Attempt, attempt_for
from hpc_agent.domain.ids import QueueId
from hpc_agent.runs.attempt_records import SubmissionRecord
from hpc_agent.runs.directory import RunsFolder

SLURM_CLUSTER = Path(__file__).parents[1] / "slurm-cluster"
BOUND_S = 2.0
"""Of the median, at most."""
COMMANDS = ("squeue", "sacct", "scontrol", "sinfo", "sbatch", "scancel")
COUNTER = """#!/bin/sh
echo {name} >> {ledger}
exec {program} "$@"
"""
CONF = """
include "{server}"
hpc {{
    scheduler: slurm
    root: "{root}"
    cache_dir: "{root}/cache"
    scratch_dir: "{root}/scratch"
}}
"""


@contextmanager
def slurm(folder: Path) -> Iterator[Mapping[str, str]]:
    """Variables of a Slurm of our own."""
    base = [sys.executable, str(SLURM_CLUSTER)]
    where = ["--dir", str(folder), "--json"]
    started = subprocess.run([*base, "start", *where], text=True, capture_output=True, check=False)
    if started.returncode:
        sys.exit(f"error: Slurm cannot be started here:\n{started.stderr}")
    try:
        yield json.loads(started.stdout)["env"]
    finally:
        subprocess.run([*base, "stop", "--dir", str(folder)], capture_output=True, check=False)


def counters(folder: Path, path: str) -> Path:
    """Scripts that note each call of a command of Slurm; returns the file that they write."""
    folder.mkdir()
    ledger = folder / "calls"
    for name in COMMANDS:
        program = shutil.which(name, path=path)
        assert program, f"{name} is not installed"
        (folder / name).write_text(COUNTER.format(name=name, ledger=ledger, program=program), encoding="utf-8")
        (folder / name).chmod(0o755)
    return ledger


class JobsSite:
    """A queue whose tasks all have a job that waits."""

    def __init__(self, folder: Path, conf: Path, env: Mapping[str, str]) -> None:
        self.env = env
        self.folder = folder
        self.client = Client(load(conf, {}).settings.api)
        self.runs = RunsFolder(folder / "hpc" / "runs")
        self.queue: QueueId = self.client.queues.resolve("bench", create=True)
        self.cluster = "bench"

    def add(self, number: int) -> None:
        task = self.client.tasks.create({"name": f"train {number}", "type": "training"})
        self.client.tasks.enqueue(task, self.queue)
        attempt = attempt_for(self.cluster, self.queue, task, str(number))
        self._record(attempt, self._submit(attempt))

    def _submit(self, attempt: Attempt) -> str:
        argv = ["sbatch", "--parsable", "--hold", "--time=10", f"--job-name={attempt.job_name}", "--output=/dev/null"]
        done = subprocess.run(
            [*argv, "--wrap", "true"], env=self.env, cwd=self.folder, text=True, capture_output=True, check=True
        )
        return done.stdout.strip()

    def _record(self, attempt: Attempt, job: str) -> None:
        record = SubmissionRecord(
            state="accepted",
            at=datetime.now(timezone.utc),
            queue=self.queue,
            queue_name="bench",
            cluster=self.cluster,
            job=job,
            known=True,
        )
        self.runs.of(attempt).create().write_submission(record)

    def listed(self, path: str) -> Look:
        """Runs ``hpc-agent jobs --json``."""
        env = {**self.env, "PATH": path}
        used = _processor_seconds()
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "hpc_agent", "jobs", "--json"],
            env=env,
            cwd=self.folder,
            text=True,
            capture_output=True,
            check=True,
        )
        took = time.monotonic() - begun
        return Look(took, _processor_seconds() - used, len(json.loads(done.stdout)["jobs"]))


@dataclass(frozen=True)
class Look:
    """One run of the command."""

    seconds: float
    processor_seconds: float
    """Its own and those of the commands that it starts: what a busy machine changes less."""
    rows: int


def _processor_seconds() -> float:
    """Of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measured(site: JobsSite, folder: Path, times: int) -> dict[str, object]:
    ledger = counters(folder, site.env["PATH"])
    path = f"{folder}{os.pathsep}{site.env['PATH']}"
    looks = [site.listed(path) for _ in range(times)]
    took = [look.seconds for look in looks]
    calls = ledger.read_text(encoding="utf-8").split()
    return {
        "jobs": looks[-1].rows,
        "seconds": {"median": round(statistics.median(took), 3), "slowest": round(max(took), 3)},
        "processor_seconds": round(statistics.median(look.processor_seconds for look in looks), 3),
        "requests_to_slurm": len(calls) / times,
    }


def add_all(site: JobsSite, count: int) -> None:
    """Four at once; the first error, or Ctrl-C, ends it."""
    reported = time.monotonic()
    adding = ThreadPoolExecutor(4)
    try:
        for done, _ in enumerate(adding.map(site.add, range(1, count)), start=1):
            if time.monotonic() - reported > 5:
                reported = time.monotonic()
                print(f"  {done} of {count} jobs submitted", file=sys.stderr, flush=True)
    finally:
        adding.shutdown(cancel_futures=True)


def run(folder: Path, count: int, times: int) -> list[dict[str, object]]:
    with slurm(folder / "slurm") as variables, server(folder / "server") as (_, server_conf):
        conf = folder / "clearml.conf"
        conf.write_text(CONF.format(server=server_conf, root=folder / "hpc"), encoding="utf-8")
        env = {**environment(), **variables, "CLEARML_CONFIG_FILE": str(conf), "HOME": str(folder)}
        site = JobsSite(folder, server_conf, env)
        site.add(0)
        few = measured(site, folder / "few", times)
        add_all(site, count)
        return [few, measured(site, folder / "many", times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=positive, default=2000, help="jobs in Slurm (default: 2000)")
    parser.add_argument("--times", type=positive, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobs-") as folder:
        found = run(Path(folder), arguments.jobs, arguments.times)
    print(f"{'jobs':>6}  {'median':>8}  {'slowest':>8}  {'processor':>9}  requests to Slurm")
    goals = []
    for row in found:
        seconds, jobs = row["seconds"], row["jobs"]
        assert isinstance(seconds, dict) and isinstance(row["requests_to_slurm"], (int, float))
        figures = f"{seconds['median']:>6.2f} s  {seconds['slowest']:>6.2f} s  {row['processor_seconds']:>7.2f} s"
        print(f"{jobs:>6}  {figures}  {row['requests_to_slurm']:g}")
        goals.append(goal(f"requests to Slurm for {jobs} jobs", row["requests_to_slurm"], 1))
        goals.append(goal(f"seconds for {jobs} jobs", seconds["median"], BOUND_S))
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": goals, "looks": found}, indent=2) + "\n", encoding="utf-8")
    if missed := [f"{each['name']}: {each['value']}, at most {each['bound']}" for each in goals if not each["met"]]:
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
