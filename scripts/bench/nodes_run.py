"""Benchmark of ``scripts/bench/nodes``: tasks on many nodes, each node with a disk of its own.

For 1, 2, 4 and 8 nodes: seconds from the claim to the first line of all of them, and the bytes that an agent reads from
the shared folder, by strace in a run of its own. Goals: a node of many reads as much as a node of two, and the seconds
grow less than the number of nodes. They cannot be flat here: the nodes are slurmds of one machine and share its
processors, while on a cluster each has its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.arguments import positive
from faults.bench import environment, server
from slurm_cluster.layout import COUNT_VARIABLE

from hpc_agent.api.client import Client
from hpc_agent.config.load import load
from hpc_agent.domain.ids import TaskId

SLURM_CLUSTER = Path(__file__).parents[1] / "slurm-cluster"
COUNTS = (1, 2, 4, 8)
WAIT_S = 600.0
PACKAGES = "numpy"
SCRIPT = 'import os, time\nprint("FIRST", os.environ.get("SLURMD_NODENAME"), time.time(), flush=True)\n'
FLAT = 1.2
"""Bytes that a node of many reads, at most so many times those of a node of two."""
CONF = """
include "{server}"
hpc {{
    scheduler: slurm
    root: "{root}"
    agent_command: ["{agent}"]
    poll_interval: 0.5
    resources {{ num_cpus: 1, memory_gb: 1, time_limit: 10 }}
    queues {{ bench {{ overrides {{ num_nodes {{}} }} }} }}
}}
"""
AGENT = """#!/bin/sh
# A disk for each node, and with a file `traced` in this folder a list of what its agent reads.
TMPDIR={folder}/disks/$SLURMD_NODENAME
export TMPDIR
mkdir -p "$TMPDIR"
if [ -e {folder}/traced ]; then
    exec strace -f -y -qq -e trace=read,pread64,readv,mmap -o {folder}/traces/"$SLURMD_NODENAME.$$" \\
        {python} -m hpc_agent "$@"
fi
exec {python} -m hpc_agent "$@"
"""
_READ = re.compile(r"(?:read|pread64|readv)\(\d+<([^>]*)>.*= (\d+)$")


@dataclass(frozen=True)
class Figures:
    """Of tasks on so many nodes."""

    nodes: int
    seconds: float
    """From the claim to the first line of all nodes, the median."""
    megabytes: float | None
    """Read from the shared folder by a node's agent, the most of all nodes; None where strace is not installed."""


@contextmanager
def slurm(folder: Path) -> Iterator[Mapping[str, str]]:
    base = [sys.executable, str(SLURM_CLUSTER)]
    env = environment(**{COUNT_VARIABLE: str(max(COUNTS))})
    started = subprocess.run(
        [*base, "start", "--dir", str(folder), "--json"], text=True, capture_output=True, check=False, env=env
    )
    if started.returncode:
        sys.exit(f"error: Slurm cannot be started here:\n{started.stderr}")
    try:
        yield json.loads(started.stdout)["env"]
    finally:
        subprocess.run([*base, "stop", "--dir", str(folder)], capture_output=True, check=False, env=env)


class NodesBench:
    """A queue, and the daemon that serves it."""

    def __init__(self, folder: Path, conf: Path, client: Client) -> None:
        self.folder = folder
        self.conf = conf
        self.client = client
        self.queue = client.queues.resolve("bench", create=True)

    def run(self, nodes: int) -> TaskId:
        """A task on so many nodes, to its end."""
        script = {
            "entry_point": "bench.py",
            "working_dir": ".",
            "diff": SCRIPT,
            "binary": f"python{sys.version_info[0]}.{sys.version_info[1]}",
            "requirements": {"pip": PACKAGES},
        }
        task = self.client.tasks.create({"name": f"{nodes} nodes", "type": "training", "script": script})
        self.client.tasks.set_properties(task, {"num_nodes": str(nodes), "launcher": "srun"})
        self.client.tasks.enqueue(task, self.queue)
        until = time.monotonic() + WAIT_S
        while (state := self.client.tasks.get_states([task])[task]).status.value not in ("completed", "failed"):
            if time.monotonic() > until:
                sys.exit(f"error: the task on {nodes} nodes is {state.status.value} after {WAIT_S:g} s")
            time.sleep(0.2)
        if state.status.value == "failed":
            sys.exit(f"error: the task on {nodes} nodes failed: {state.reason}")
        return task

    def seconds(self, task: TaskId, nodes: int) -> float:
        """From the claim to the first line of its last node."""
        [run] = (self.folder / "hpc" / "runs" / task).glob("*/claim.json")
        claimed = datetime.fromisoformat(json.loads(run.read_text())["at"].replace("Z", "+00:00"))
        console = "".join(event["msg"] for event in self.client.events.console_after(task, 0))
        firsts = re.findall(r"FIRST (n\d+) ([0-9.]+)", console)
        if len(firsts) != nodes:
            sys.exit(f"error: {len(firsts)} of {nodes} nodes printed their line")
        return max(float(at) for _, at in firsts) - claimed.timestamp()

    def forget(self) -> None:
        """All nodes are new ones."""
        for disk in (self.folder / "disks").glob("*"):
            subprocess.run(["chmod", "-R", "u+rwX", str(disk)], check=True)
            shutil.rmtree(disk)

    def megabytes(self) -> dict[str, float]:
        """By node, what its agents read from the shared folder."""
        found: dict[str, float] = defaultdict(float)
        for trace in (self.folder / "traces").iterdir():
            for line in trace.read_text(errors="replace").splitlines():
                if (match := _READ.search(line)) and match[1].startswith(str(self.folder / "hpc")):
                    found[trace.name.partition(".")[0]] += int(match[2]) / 1e6
        return found


def measure(bench: NodesBench, nodes: int, rounds: int) -> Figures:
    bench.forget()
    times = []
    for _ in range(rounds):
        bench.forget()
        times.append(bench.seconds(bench.run(nodes), nodes))
    read = None
    if shutil.which("strace"):
        bench.forget()
        traced, traces = bench.folder / "traced", bench.folder / "traces"
        shutil.rmtree(traces, ignore_errors=True)
        traces.mkdir()
        traced.touch()
        bench.run(nodes)
        traced.unlink()
        # The first node's own reads count too: its two agents are the job's.
        read = max(bench.megabytes().values(), default=0.0)
    return Figures(nodes, statistics.median(times), read)


def goals_of(found: list[Figures]) -> list[dict[str, object]]:
    """Two nodes are the fewest with an agent that is not the first."""
    _, two, *more = found
    goals: list[dict[str, object]] = []
    for many in more:
        compared = f"{many.nodes} nodes to {two.nodes}"
        if two.megabytes is not None and many.megabytes is not None:
            goals.append(goal(f"bytes a node reads, {compared}", many.megabytes / two.megabytes, FLAT))
        bound = many.nodes / two.nodes
        goals.append(goal(f"claim to the first line of all, {compared}", many.seconds / two.seconds, bound))
    return goals


def goal(name: str, ratio: float, bound: float) -> dict[str, object]:
    return {"name": name, "value": round(ratio, 2), "bound": bound, "met": ratio <= bound}


@contextmanager
def site(folder: Path) -> Iterator[NodesBench]:
    (folder / "disks").mkdir()
    agent = folder / "agent"
    agent.write_text(AGENT.format(folder=folder, python=sys.executable))
    agent.chmod(0o755)
    with slurm(folder / "slurm") as variables, server(folder / "server") as (_, own):
        conf = folder / "clearml.conf"
        conf.write_text(CONF.format(server=own, root=folder / "hpc", agent=agent))
        bench = NodesBench(folder, conf, Client(load(conf, {}).settings.api))
        env = {**environment(CLEARML_CONFIG_FILE=str(conf), HOME=str(folder), **variables), "PATH": os.environ["PATH"]}
        argv = [sys.executable, "-m", "hpc_agent", "daemon", "--queue", "bench", "--foreground"]
        with (folder / "daemon.log").open("ab") as log:
            daemon = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
        try:
            yield bench
        finally:
            daemon.terminate()
            daemon.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="nodes", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="tasks for each number of nodes (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpc-nodes-") as name, site(Path(name)) as bench:
        bench.run(1)  # builds the environment
        found = []
        print(f"{'nodes':>5}  {'claim to first line of all':>26}  {'read by a node':>14}")
        for nodes in COUNTS:
            figures = measure(bench, nodes, arguments.rounds)
            found.append(figures)
            read = "-" if figures.megabytes is None else f"{figures.megabytes:.1f} MB"
            print(f"{nodes:>5}  {figures.seconds:>24.1f} s  {read:>14}", flush=True)
        bench.forget()
    goals = goals_of(found)
    for each in goals:
        print(f"{'met' if each['met'] else 'MISSED'}: {each['name']}: {each['value']} (at most {each['bound']})")
    if arguments.json:
        results = {"goals": goals, "nodes": {str(figures.nodes): vars(figures) for figures in found}}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(each["met"] for each in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
