"""Runs the benchmark of ``scripts/bench/filesystem``: a short task, one that prints, and an idle daemon.

An operation is a system call that a file server is asked for: what opens, closes, reads, writes, syncs, lists, looks up
or renames by name. Not counted is what a client answers by itself: positions in and sizes of open files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

import hpc_agent
from hpc_agent.api.client import Client
from hpc_agent.bundles.agent_archive import staged_agent_command
from hpc_agent.config.job_config import write_job_config
from hpc_agent.config.load import load
from hpc_agent.domain.attempt import Attempt, attempt_for
from hpc_agent.domain.ids import AttemptId, TaskId
from hpc_agent.runs.attempt_records import DoneRecord
from hpc_agent.runs.directory import RunDirectory, RunsFolder

PRINTS_S, SILENT_S = 20, 30
LINES_A_SECOND = 20
OLD_RUNS = 1000
DAEMON_S = 75.0
"""More than the minute after which a daemon looks for attempts that others made."""
BOUNDS = {
    "operations a second while a task prints": 10.0,
    "operations a second while a task is silent": 1.0,
    "operations of a short task, program on the node, times those where it is installed": 0.15,
    f"operations of an idle daemon at {OLD_RUNS:,} old runs, times those at none": 1.1,
}
PROGRAM = (sys.executable, "-m", "hpc_agent")
_OWN_ANSWERS = {"lseek", "ioctl", "fcntl", "fstat"}
_CALL = re.compile(r"\d+ +(?P<at>[\d.]+) (?P<name>\w+)\((?P<rest>.*)")


@dataclass(frozen=True)
class Operation:
    at: float
    """Unix time."""
    call: str


INSTALLED = (Path(sys.prefix), Path(hpc_agent.__file__).parent)
"""Where this program is: on a shared file system, at most sites."""


def operations(lines: Iterable[str], *folders: Path) -> Iterator[Operation]:
    """Those on the folders, of the output of ``strace -f -ttt -y``."""
    for line in lines:
        match = _CALL.match(line)
        if (
            match is None
            or match["name"] in _OWN_ANSWERS
            or not any(str(folder) in match["rest"] for folder in folders)
        ):
            continue
        if match["name"] == "newfstatat" and ', "", ' in match["rest"]:
            continue  # fstat: by descriptor
        yield Operation(float(match["at"]), match["name"])


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "SLURM_"))}
        self.env = {**own, "HOME": str(folder), "NO_COLOR": "1"}

    @contextlib.contextmanager
    def server(self) -> Iterator[None]:
        argv = [sys.executable, "-m", "hpc_agent", "server", "--port", "0", "--data-dir", str(self.folder / "server")]
        with (self.folder / "server.log").open("w") as log:
            child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True, env=self.env)
        assert child.stdout is not None
        child.stdout.readline()
        try:
            self.client = Client(load(self.configuration("job"), {}).settings.api)
            self.queue = self.client.queues.resolve("bench", create=True)
            yield
        finally:
            child.terminate()
            child.wait()
            child.stdout.close()

    def configuration(self, name: str) -> Path:
        """With an ``hpc.root`` of its own."""
        path = self.folder / f"{name}.conf"
        path.write_text(
            f'include "{self.folder}/server/clearml.conf"\n'
            f'hpc {{ root: "{self.folder}/{name}", scratch_dir: "{self.folder}/node", scheduler: local }}\n'
        )
        return path

    def traced(
        self, name: str, argv: Sequence[str], env: dict[str, str], seconds: float, program: Sequence[str] = PROGRAM
    ) -> list[str]:
        """Lines of strace of our program, which is asked to end after ``seconds``."""
        trace = self.folder / f"{name}.trace"
        strace = ["strace", "-f", "-ttt", "-y", "-e", "trace=%file,%desc", "-o", str(trace)]
        with (self.folder / f"{name}.log").open("w") as log:
            child = subprocess.Popen(
                [*strace, *program, *argv], env=env, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
            )
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                # strace itself blocks signals while it writes to a file.
                for traced in psutil.Process(child.pid).children():
                    traced.terminate()
                child.wait()
        return trace.read_text(errors="replace").splitlines()


@dataclass(frozen=True)
class Job:
    """A task whose job is about to start, as a daemon leaves it."""

    task: TaskId
    directory: RunDirectory
    env: dict[str, str]

    @property
    def argv(self) -> list[str]:
        return ["execute", "--id", self.task, "--require-queue", "--standalone-mode"]


def new_job(bench: Bench, configuration: Path, command: str) -> Job:
    """``command``: what the shell runs as its task."""
    script = {"entry_point": f"-c {command}", "binary": "/bin/bash", "working_dir": "."}
    project = bench.client.projects.find_or_create("bench")
    task = bench.client.tasks.create({"name": "prints", "type": "training", "project": project, "script": script})
    bench.client.tasks.enqueue(task, bench.queue)
    [queue] = bench.client.queues.get_many([bench.queue])
    [entry] = queue.entries
    directory = RunsFolder(bench.folder / "job" / "runs").of(attempt_for("bench", queue.id, task, entry.added)).create()
    write_job_config(load(configuration, {}), bench.folder / "job" / "job.conf")
    variables = {
        "HPC_AGENT_RUN_DIR": str(directory.path),
        "CLEARML_CONFIG_FILE": str(bench.folder / "job" / "job.conf"),
    }
    return Job(task, directory, {**bench.env, **variables})


def short_task(bench: Bench) -> dict[str, float]:
    """Operations on the shared folders, program included, of a job whose task does nothing."""
    configuration = bench.configuration("job")
    own = load(configuration, {}, flags={"hpc.agent_archive": True}).settings.hpc
    copied = staged_agent_command(own, makes=True)
    if not copied:
        raise SystemExit("there is no archive of the program")
    ways = {
        "where it is installed": PROGRAM,
        "on the node, for the first job there": copied,
        "on the node": copied,
    }
    found: dict[str, float] = {}
    for number, (way, program) in enumerate(ways.items()):
        job = new_job(bench, configuration, "echo $(date +%s.%N) 1")
        lines = bench.traced(f"short{number}", job.argv, job.env, 600, program)
        if (status := bench.client.tasks.get_object(job.task)["status"]) != "completed":
            raise SystemExit(f"the task is {status}: {(bench.folder / f'short{number}.log').read_text()}")
        found[f"operations of a short task, program {way}"] = len(
            list(operations(lines, bench.folder / "job", *INSTALLED))
        )
        found[f"  of these on the folder of its jobs, program {way}"] = len(
            list(operations(lines, bench.folder / "job"))
        )
    installed, on_node = (
        found[f"operations of a short task, program {way}"] for way in ("where it is installed", "on the node")
    )
    name = "operations of a short task, program on the node, times those where it is installed"
    return {**found, name: round(on_node / installed, 3)}


def printing_task(bench: Bench) -> dict[str, float]:
    """Operations a second on the run directory, of a job whose task prints and then is silent."""
    loop = f"for i in $(seq {PRINTS_S * LINES_A_SECOND}); do echo $(date +%s.%N) $i; sleep {1 / LINES_A_SECOND}; done"
    command = f"{loop}; echo $(date +%s.%N) silent; sleep {SILENT_S}; echo $(date +%s.%N) over"
    job = new_job(bench, bench.configuration("job"), command)
    lines = bench.traced("job", job.argv, job.env, 10 * (PRINTS_S + SILENT_S))
    found = list(operations(lines, bench.folder / "job"))
    first, silent, over = _times(job.directory)
    # Not the moments around a change: the last lines are sent, and their checkpoint is written 5 s later.
    return {
        "operations a second while a task prints": _rate(found, first + 2, silent - 1),
        "operations a second while a task is silent": _rate(found, silent + 8, over - 1),
        "operations of the job in all": len(found),
    }


def _times(directory: RunDirectory) -> tuple[float, float, float]:
    """When the task printed its first line, fell silent, and ended."""
    text = directory.console().text.read_text()
    times = [re.search(rf"^([\d.]+) {word}$", text, re.MULTILINE) for word in ("1", "silent", "over")]
    if not all(times):
        raise SystemExit(f"the task did not run:\n{text}")
    first, silent, over = (float(match[1]) for match in times if match)
    return first, silent, over


def _rate(found: list[Operation], begin: float, end: float) -> float:
    return round(sum(begin <= operation.at < end for operation in found) / (end - begin), 2)


def idle_daemon(bench: Bench, old_runs: int) -> int:
    """Operations on the run directories, of a daemon without work, from its start on."""
    name = f"daemon{old_runs}"
    configuration = bench.configuration(name)
    runs = RunsFolder(bench.folder / name / "runs")
    for number in range(old_runs):
        run = runs.of(Attempt(TaskId(f"{number:032x}"), AttemptId(f"{number:08x}"))).create()
        run.write_settled(DoneRecord(at=datetime.now(timezone.utc), why="completed"))
    env = {**bench.env, "CLEARML_CONFIG_FILE": str(configuration)}
    argv = ["daemon", "--queue", "bench"]
    subprocess.run(
        [sys.executable, "-m", "hpc_agent", *argv, "--once"], env=env, check=True, capture_output=True
    )  # the first of all makes the index
    lines = bench.traced(name, [*argv, "--foreground"], env, DAEMON_S)
    return sum(1 for _ in operations(lines, runs.path))


def daemons(bench: Bench) -> dict[str, float]:
    none, many = idle_daemon(bench, 0), idle_daemon(bench, OLD_RUNS)
    return {
        f"operations of an idle daemon in {DAEMON_S:.0f} s at no old run": none,
        f"operations of an idle daemon in {DAEMON_S:.0f} s at {OLD_RUNS:,} old runs": many,
        f"operations of an idle daemon at {OLD_RUNS:,} old runs, times those at none": round(many / none, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["start", "job", "daemon"], action="append")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        parser.error("strace is not installed; install it and try again")
    parts: dict[str, Callable[[Bench], dict[str, float]]] = {
        "start": short_task,
        "job": printing_task,
        "daemon": daemons,
    }
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="hpc-agent-bench-") as folder:
        bench = Bench(Path(folder))
        with bench.server():
            for name, part in parts.items():
                if not options.only or name in options.only:
                    began = time.monotonic()
                    found |= part(bench)
                    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    goals = [
        {"name": name, "value": found[name], "bound": bound, "met": found[name] <= bound}
        for name, bound in BOUNDS.items()
        if name in found
    ]
    for name, value in found.items():
        print(f"{name:<85} {value:>8}" + (f"   at most {BOUNDS[name]:g}" if name in BOUNDS else ""))
    if options.json:
        options.json.write_text(json.dumps({"goals": goals, "found": found}, indent=2) + "\n")
    return 0 if all(goal["met"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
