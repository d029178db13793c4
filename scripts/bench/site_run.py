"""Runs the benchmark of ``scripts/bench/site``: requests of a simulated site, and what they cost real servers.

A cost is processor time, which a busy machine does not lengthen. What breaks first is what needs the most of the one
processor that it has: the embedded server, or slurmctld.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH", "")])]
)

from faults.arguments import positive
from site_load import busy_server
from site_load.executors import EXECUTORS, Work
from site_load.server_costs import OTHERS, STATES_OF_MANY, server_costs
from site_load.simulation import DAEMONS, Observed, Size, simulate
from site_load.slurm_costs import slurm_costs
from site_load.task_requests import task_requests

from hpc_agent.config.clearml_settings import AgentSettings

PARTS = ("server", "slurm")
SLURM_JOBS = 1000
"""In the real Slurm; each costs a submission."""
RUNNING = (500, 1_000, 2_000, 5_000)
"""Tasks at a server that has one processor for them."""
TASK_S = 3600.0
LINE_EVERY_S = 10.0
AROUND = 10
"""Requests of a job before its process starts and after it has ended, without its console: at most."""
SLURM_REQUESTS = 0.2
"""Of a daemon, a second: at most."""


@dataclass(frozen=True)
class Cost:
    """Of one kind of request."""

    a_second: float
    seconds: float
    """Of a processor, for each."""

    @property
    def load(self) -> float:
        """Processors."""
        return self.a_second * self.seconds


def server_loads(seen: Observed, costs: Mapping[str, float]) -> dict[str, Cost]:
    found = {}
    for (program, endpoint), number in sorted(seen.traffic.requests.items()):
        kind = STATES_OF_MANY if (program, endpoint) == (DAEMONS, "tasks.get_all") else endpoint
        found[f"{program}: {endpoint}"] = Cost(number / seen.seconds, costs.get(kind, costs.get(OTHERS, 0.0)))
    return found


def slurm_loads(seen: Observed, costs: Mapping[str, float]) -> dict[str, Cost]:
    return {name: Cost(number / seen.seconds, costs.get(name, 0.0)) for name, number in sorted(seen.commands.items())}


def goals(seen: Observed, size: Size, around: Mapping[str, int]) -> list[dict[str, object]]:
    commands = seen.commands.total() / seen.seconds / size.daemons
    requests = sum(number for endpoint, number in around.items() if not endpoint.startswith("events."))
    pairs = [
        ("requests to Slurm a second, of each daemon", round(commands, 3), SLURM_REQUESTS),
        ("requests of a job without console and metrics", requests, AROUND),
    ]
    return [{"name": name, "value": value, "bound": bound, "met": value <= bound} for name, value, bound in pairs]


def show(title: str, loads: Mapping[str, Cost]) -> dict[str, object]:
    print(f"\n{title:<46} {'a second':>9} {'ms each':>8} {'processors':>10}")
    for name, cost in loads.items():
        print(f"{name:<46} {cost.a_second:>9.2f} {1000 * cost.seconds:>8.2f} {cost.load:>10.3f}")
    total = sum(cost.load for cost in loads.values())
    a_second = sum(cost.a_second for cost in loads.values())
    print(f"{'in all':<46} {a_second:>9.2f} {'':>8} {total:>10.3f}")
    rows = {name: {"a second": round(c.a_second, 3), "seconds": round(c.seconds, 6)} for name, c in loads.items()}
    return {"requests": rows, "a second": round(a_second, 2), "processors": round(total, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=positive, default=100_000, help="of all queues (default: 100000)")
    parser.add_argument("--daemons", type=positive, default=50, help="each with a queue of its own (default: 50)")
    parser.add_argument("--running", type=positive, default=5_000, help="tasks that run (default: 5000)")
    parser.add_argument("--seconds", type=positive, default=60, help="of the site's time (default: 60)")
    parser.add_argument("--without", choices=PARTS, action="append", default=[], help="costs that are not measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    options = parser.parse_args()
    size = Size(options.entries, options.daemons, options.running, float(options.seconds))
    own = size.running // size.daemons
    with tempfile.TemporaryDirectory(prefix="site-") as name:
        folder = Path(name)
        around = task_requests(folder / "task")
        work = Work(TASK_S, LINE_EVERY_S, AgentSettings().task_ping_interval_sec, around)
        seen = simulate(folder / "site", size, work)
        at_server = {} if "server" in options.without else server_costs(folder / "s", size.entries // size.daemons, own)
        at_slurm = {} if "slurm" in options.without else slurm_costs(folder / "slurm", SLURM_JOBS, own)
    busy = busy_server.table(RUNNING, at_server["tasks.get_all"]) if at_server else {}
    server = show("at the server", server_loads(seen, at_server))
    slurm = show("at Slurm", slurm_loads(seen, at_slurm))
    figures = {
        "tasks that ended": seen.ended,
        "megabytes a second of queues": round(sum(seen.traffic.bytes.values()) / seen.seconds / 1e6, 2),
        "rows of squeue a second": round(seen.rows / seen.seconds, 1),
        "processors of all daemons": round(seen.pass_seconds / seen.seconds, 3),
        "requests a second of a running task": round(_of(seen, EXECUTORS) / seen.seconds / size.running, 3),
    }
    print("\n" + "\n".join(f"{name:<46} {value:>9}" for name, value in figures.items()))
    reached = goals(seen, size, around)
    for goal in reached:
        print(f"{goal['name']:<46} {goal['value']:>9}   at most {goal['bound']:g}")
    for running, ways in busy.items():
        for way, found in ways.items():
            print(f"{running:>6} tasks at one server, {way:<20} {json.dumps(found)}")
    if options.json:
        loads = {"server": server, "slurm": slurm, "tasks at one server": busy}
        what = {"size": vars(size), "around a task": around, "figures": figures, **loads}
        options.json.write_text(json.dumps({"goals": reached, **what}, indent=2) + "\n", encoding="utf-8")
    return 0 if all(goal["met"] for goal in reached) else 1


def _of(seen: Observed, program: str) -> int:
    return sum(number for (who, _), number in seen.traffic.requests.items() if who == program)


if __name__ == "__main__":
    sys.exit(main())
