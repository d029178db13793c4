"""Runs the benchmark of ``scripts/bench/abort``: real server, daemon with the local scheduler, programs with the SDK.

Each case runs in a task of its own. Its time is from a person's abort to the task's final status; the slowest must be
within its bound, and the console must have the lines that say that the program was let end. Only an otherwise idle
machine gives figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.latency_run import Site
from faults.arguments import positive
from faults.bench import bench

GRACE_S = 20.0
"""The default of ``hpc.term_grace``."""
SDK = "import time\nfrom clearml import Task\ntask = Task.init()\n"
SLEEP = "print('begun', flush=True)\nwhile True:\n    time.sleep(600)\n"
COMPUTE = "print('begun', flush=True)\nwhile True:\n    sum(range(1000000))\n"
SAVE = """
import signal, sys, time
def save(*_):
    print("saving", flush=True)
    time.sleep({seconds})
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
"""
POOL = """
import multiprocessing
def work(_):
    while True:
        time.sleep(1)
with multiprocessing.get_context("fork").Pool(4) as pool:
    pending = pool.map_async(work, range(4))
    print("begun", flush=True)
    pending.get()
"""
CALLBACK = """
def clean_up():
    print("callback begins", flush=True)
    time.sleep(3)
    print("callback ends", flush=True)
task.register_abort_callback(clean_up, callback_execution_timeout=60)
"""


def in_try(text: str) -> str:
    inner = "".join(f"    {line}\n" for line in text.splitlines())
    return f"try:\n{inner}finally:\n    print('finally ran', flush=True)\n"


@dataclass(frozen=True)
class Case:
    """``lines``: what the console must have in the end. ``bound``: seconds, at most."""

    text: str
    lines: tuple[str, ...]
    bound: float
    sdk: bool = True


CASES = {
    "SDK, sleeps": Case(SDK + in_try(SLEEP), ("finally ran",), 5.0),
    "SDK, computes": Case(SDK + in_try(COMPUTE), ("finally ran",), 5.0),
    "SDK, processes of its own": Case(SDK + in_try(POOL), ("finally ran",), 5.0),
    "SDK, own handler": Case(SDK + SAVE.format(seconds=1) + in_try(SLEEP), ("saved", "finally ran"), 5.0),
    "SDK, own handler set before": Case(SAVE.format(seconds=1) + SDK + in_try(SLEEP), ("saved", "finally ran"), 15.0),
    "SDK, abort callback of 3 s": Case(SDK + CALLBACK + SLEEP, ("callback ends",), 15.0 + 3.0 + 5.0),
    "no SDK": Case("import time\n" + SLEEP, (), 5.0, sdk=False),
    "no SDK, own handler of 6 s": Case(SAVE.format(seconds=6) + SLEEP, ("saved",), 11.0, sdk=False),
    "no SDK, ignores SIGTERM": Case(
        f"import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEP}", (), GRACE_S + 5.0, sdk=False
    ),
}
"""The SDK looks every 15 s whether its callback is due. Where a handler of the program's own was set before
``Task.init``, the SDK shuts itself down inside its handler; its exit then takes 10 s, with and without us."""


@dataclass(frozen=True)
class Ended:
    """End of one aborted task: its seconds, and the lines that its console lacks."""

    seconds: float
    missing: tuple[str, ...]


def measure(site: Site) -> Iterator[tuple[str, Ended]]:
    site.agent("cache", "warm", "--id", site.task(SLEEP, "clearml", enqueue=False))
    with site.daemon():
        for name, case in CASES.items():
            task = site.task(case.text, "clearml" if case.sdk else "")
            site.until("its line", lambda task=task: "begun" in site.console(task))  # type: ignore[misc]
            seconds = site.abort(task)
            console = site.console(task)
            yield name, Ended(seconds, tuple(line for line in case.lines if line not in console))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=positive, default=3, metavar="N", help="of each case (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    ends: dict[str, list[Ended]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory(prefix="abort") as name, bench(Path(name)) as server:
        for number in range(arguments.runs):
            for what, ended in measure(Site(server, Path(name), number, GRACE_S)):
                ends[what].append(ended)
    goals = [goal for name, case in CASES.items() for goal in goals_of(name, case, ends[name])]
    for name, case in CASES.items():
        print(row(name, case, ends[name]))
    if arguments.json:
        seconds_of = {name: [round(ended.seconds, 3) for ended in found] for name, found in ends.items()}
        arguments.json.write_text(json.dumps({"goals": goals, "seconds": seconds_of}, indent=2) + "\n")
    return 0 if all(goal["met"] for goal in goals) else 1


def goals_of(name: str, case: Case, ends: list[Ended]) -> Iterator[dict[str, object]]:
    slowest = max(ended.seconds for ended in ends)
    yield {"name": f"{name}, s", "value": round(slowest, 2), "bound": case.bound, "met": slowest <= case.bound}
    cut = sum(1 for ended in ends if ended.missing)
    yield {"name": f"{name}, ends cut short", "value": cut, "bound": 0, "met": cut == 0}


def row(name: str, case: Case, ends: list[Ended]) -> str:
    seconds = [ended.seconds for ended in ends]
    missing = sorted({line for ended in ends for line in ended.missing})
    lines = f"   without: {', '.join(missing)}" if missing else ""
    return (
        f"{name:<30} median {statistics.median(seconds):6.2f} s   slowest {max(seconds):6.2f} s of {case.bound:g} s"
        f"{lines}"
    )


if __name__ == "__main__":
    sys.exit(main())
