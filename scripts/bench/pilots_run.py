"""Benchmark of ``scripts/bench/pilots``: one-second tasks in a pilot, as a job each, and as a bare loop.

Slurm, server, daemon and pilot are real. A task writes down when it starts and ends; a rate is that of tasks from the
first start to the last end, so that no wait in Slurm counts. The bare loop runs the same script with the same Python in
one allocation, as many side by side: what it reaches is the limit. Only an otherwise idle machine gives figures.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.arguments import positive
from faults.bench import environment, server
from scale.site import goal

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import QueueId
from hpc_agent.schedulers.pilots.board import EndedPilotTask, TaskBoard

SLURM_CLUSTER = Path(__file__).parents[1] / "slurm-cluster"
GOAL = 0.7
"""Of the bare loop's rate, at least."""
HANG_S = 7200.0
WORK = """
import os, time
started = time.time()
time.sleep({seconds})
ledger = os.open({ledger!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(ledger, f"{{started}} {{time.time()}}\\n".encode())
"""
CONF = """
include "{server}"
hpc {{
    scheduler: slurm
    root: "{root}"
    cache_dir: "{root}/cache"
    scratch_dir: "{root}/scratch"
    resources {{ num_cpus: 1, time_limit: 10 }}
    queues {{
        pilot {{
            mode: pilot
            pilot {{ resources {{ num_cpus: {slots}, time_limit: 240 }}, idle_time: 60 }}
        }}
        job {{ max_jobs: {slots} }}
    }}
}}
"""


@dataclass(frozen=True)
class Span:
    """One run of the task's script; seconds since the epoch."""

    started: float
    ended: float


def spans(ledger: Path) -> list[Span]:
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.exists() else []
    return [Span(*map(float, line.split())) for line in lines]


def rate(found: list[Span]) -> float:
    """Tasks a second."""
    return len(found) / (max(span.ended for span in found) - min(span.started for span in found))


@contextmanager
def slurm(folder: Path) -> Iterator[Mapping[str, str]]:
    """Variables of a Slurm of our own."""
    base = [sys.executable, str(SLURM_CLUSTER)]
    started = subprocess.run(
        [*base, "start", "--dir", str(folder), "--json"], text=True, capture_output=True, check=False
    )
    if started.returncode:
        sys.exit(f"error: Slurm cannot be started here:\n{started.stderr}")
    try:
        yield json.loads(started.stdout)["env"]
    finally:
        subprocess.run([*base, "stop", "--dir", str(folder)], capture_output=True, check=False)


class PilotBench:
    """One site; each way of running the tasks has a queue and a ledger of its own."""

    def __init__(self, folder: Path, conf: Path, env: Mapping[str, str], slots: int, seconds: float) -> None:
        self.folder = folder
        self.env = env
        self.client = Client(load(conf, {}).settings.api)
        self.slots = slots
        self.seconds = seconds

    def ledger(self, way: str) -> Path:
        return self.folder / f"ledger-{way}"

    def work(self, way: str) -> str:
        return WORK.format(seconds=self.seconds, ledger=str(self.ledger(way)))

    def bare_loop(self, count: int) -> list[Span]:
        """In one job, with xargs."""
        script = self.folder / "work.py"
        script.write_text(self.work("bare"), encoding="utf-8")
        loop = f"seq {count} | xargs -P {self.slots} -I @@ {shlex.quote(sys.executable)} {shlex.quote(str(script))}"
        argv = ["sbatch", "--wait", "--time=240", f"--cpus-per-task={self.slots}", "--output=/dev/null"]
        subprocess.run([*argv, "--wrap", loop], env=self.env, cwd=self.folder, capture_output=True, check=True)
        return spans(self.ledger("bare"))

    def queued(self, way: str, count: int) -> list[Span]:
        """As tasks of the queue of this name, by a daemon."""
        queue: QueueId = self.client.queues.resolve(way, create=True)
        script = {"entry_point": "work.py", "working_dir": ".", "diff": self.work(way), "requirements": {"pip": ""}}
        for number in range(count):
            task = self.client.tasks.create({"name": f"{way} {number}", "type": "training", "script": script})
            self.client.tasks.enqueue(task, queue)
        argv = [sys.executable, "-m", "hpc_agent", "daemon", "--foreground", "--queue", way]
        with (self.folder / f"daemon-{way}.log").open("wb") as log:
            daemon = subprocess.Popen(argv, env=self.env, cwd=self.folder, stdout=log, stderr=log)
        try:
            self._wait(way, count, daemon)
        finally:
            daemon.terminate()
            daemon.wait()
        return spans(self.ledger(way))

    def _wait(self, way: str, count: int, daemon: subprocess.Popen[bytes]) -> None:
        deadline, reported = time.monotonic() + HANG_S, time.monotonic()
        while (done := len(spans(self.ledger(way)))) < count:
            if daemon.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"error: {done} of {count} tasks have run: see {self.folder}/daemon-{way}.log")
            if time.monotonic() - reported > 10:
                reported = time.monotonic()
                print(f"  {way}: {done} of {count}", file=sys.stderr, flush=True)
            time.sleep(0.2)


def shares(board: TaskBoard, found: list[Span]) -> dict[str, float]:
    """Where the time of one task in a pilot goes, in seconds: medians. Spans and claims are in the same order, as far
    as the tasks run one after the other. While a task is reported the next one runs."""
    kept = board.ended_since(datetime.fromtimestamp(0, timezone.utc)).values()
    ended = sorted(kept, key=lambda task: task.claim.at if task.claim else task.end.at)
    ordered = sorted(found, key=lambda span: span.started)
    pairs = list(zip(ended, ordered, strict=False))

    def median(values: list[float]) -> float:
        return round(statistics.median(values), 3) if values else 0.0

    def granted(task: EndedPilotTask) -> float:
        assert task.claim is not None
        return task.claim.at.timestamp()

    return {
        "from its slot to its first line": median([span.started - granted(task) for task, span in pairs]),
        "its own second": median([span.ended - span.started for _, span in pairs]),
        "from its last line to the next task's slot": median(
            [granted(after) - span.ended for (_, span), (after, _) in pairwise(pairs)]
        ),
        "from its last line to the end of its report": median(
            [task.end.at.timestamp() - span.ended for task, span in pairs]
        ),
    }


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    with slurm(folder / "slurm") as variables, server(folder / "server") as (_, server_conf):
        conf, slots = folder / "clearml.conf", arguments.side_by_side
        conf.write_text(CONF.format(server=server_conf, root=folder / "hpc", slots=slots), encoding="utf-8")
        env = {**environment(), **variables, "CLEARML_CONFIG_FILE": str(conf), "HOME": str(folder)}
        env.setdefault("PATH", os.environ["PATH"])
        bench = PilotBench(folder, server_conf, env, slots, arguments.seconds)
        bare = bench.bare_loop(arguments.tasks)
        pilot = bench.queued("pilot", arguments.tasks)
        jobs = bench.queued("job", arguments.jobs) if arguments.jobs else []
        [cluster] = (folder / "hpc" / "pilots").iterdir()
        rates = {"bare loop": rate(bare), "pilot": rate(pilot), **({"a job each": rate(jobs)} if jobs else {})}
        reached = rates["pilot"] / rates["bare loop"]
        return {
            "goals": [goal("pilot, of the rate of a bare loop", reached, GOAL, at_least=True)],
            "tasks": arguments.tasks,
            "side_by_side": slots,
            "tasks_a_second": {way: round(found, 3) for way, found in rates.items()},
            "of_the_bare_loop": {way: round(found / rates["bare loop"], 3) for way, found in rates.items()},
            "seconds_of_a_task_in_a_pilot": shares(TaskBoard(cluster), pilot) if slots == 1 else {},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=positive, default=500, help="tasks in the pilot and the loop (default: 500)")
    parser.add_argument("--jobs", type=int, default=30, help="tasks that are a job each; 0: none (default: 30)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a task sleeps (default: 1)")
    parser.add_argument("--side-by-side", type=positive, default=1, help="tasks at once (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--dir", type=Path, metavar="FOLDER", help="keep everything in this folder, which must not exist"
    )
    arguments = parser.parse_args()
    if arguments.dir:
        arguments.dir.mkdir(parents=True)
        found = run(arguments.dir, arguments)
    else:
        with tempfile.TemporaryDirectory(prefix="pilots-") as folder:
            found = run(Path(folder), arguments)
    rates, parts = found["tasks_a_second"], found["of_the_bare_loop"]
    assert isinstance(rates, dict) and isinstance(parts, dict)
    for way, per_second in rates.items():
        print(f"{way:<12}  {per_second:>6.2f} tasks/s  {parts[way]:>5.2f} of the bare loop")
    details = found["seconds_of_a_task_in_a_pilot"]
    assert isinstance(details, dict)
    for what, seconds in details.items():
        print(f"  {what:<44}  {seconds:>6.3f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    if parts["pilot"] < GOAL:
        sys.exit(f"the pilot reached {parts['pilot']:.2f} of the bare loop, expected {GOAL:g} at least")


if __name__ == "__main__":
    main()
