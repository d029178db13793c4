"""Runs the benchmark of ``scripts/bench/startup``: interleaved, medians, ratios within one run."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
BASE = "python -c 'import click'"
PROGRAMS: dict[str, list[str]] = {
    BASE: [sys.executable, "-c", "import click"],
    "hpc-agent --help": [str(BIN / "hpc-agent"), "--help"],
    "hpc-agent --version": [str(BIN / "hpc-agent"), "--version"],
    "hpc-agent daemon --help": [str(BIN / "hpc-agent"), "daemon", "--help"],
    "hpc-agent execute --help": [str(BIN / "hpc-agent"), "execute", "--help"],
    "hpc-task --help": [str(BIN / "hpc-task"), "--help"],
}
BOUNDS = {"hpc-agent --help": 2.0}
"""Times the base's median, at most."""


def seconds(argv: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def medians(runs: int) -> dict[str, float]:
    for argv in PROGRAMS.values():
        seconds(argv)  # the file system's cache is warm for all, or for none
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(runs):
        for name, argv in PROGRAMS.items():
            taken[name].append(seconds(argv))
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="of each program, in turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    found = medians(arguments.runs)
    ratios = {name: found[name] / found[BASE] for name in PROGRAMS}
    for name, median in found.items():
        print(f"{name:<28} {median * 1000:7.1f} ms   {ratios[name]:5.2f} times the import")
    goals = [
        {
            "name": f"{name}, times {BASE}",
            "value": round(ratios[name], 3),
            "bound": bound,
            "met": ratios[name] <= bound,
        }
        for name, bound in BOUNDS.items()
    ]
    if arguments.json:
        results = {"goals": goals, "medians_s": {name: round(median, 5) for name, median in found.items()}}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(goal["met"] for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
