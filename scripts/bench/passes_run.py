"""Benchmark of ``scripts/bench/passes``: processor time of a daemon's pass over tasks whose jobs wait in the scheduler.

The daemon, its run directories and its records are real. The server and the scheduler answer from memory, so that only
the daemon's own work is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from scale.memory_site import memory_site

FEW, MANY = 300, 3000
RATIO = 1.5
"""Time for each task among many, times that among few: at most."""


def seconds_per_task(count: int, passes: int) -> float:
    """Median processor seconds of a pass, for each of ``count`` tasks; the first pass, which tells each task's user
    why it waits, is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        daemon = memory_site(Path(folder), pending=count).daemon
        taken = []
        for _ in range(passes + 1):
            begin = time.process_time()
            daemon.run_pass()
            taken.append(time.process_time() - begin)
    return statistics.median(taken[1:]) / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=5, help="of each number of tasks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    found = {count: seconds_per_task(count, arguments.passes) for count in (FEW, MANY)}
    for count, seconds in found.items():
        print(f"{count:5d} waiting tasks   {seconds * count:7.3f} s a pass   {seconds * 1e6:7.1f} µs a task")
    ratio = found[MANY] / found[FEW]
    print(f"time for each task, {MANY} against {FEW}: {ratio:.2f}")
    goal = {
        "name": f"pass over waiting tasks: time for each of {MANY}, times that for each of {FEW}",
        "value": round(ratio, 3),
        "bound": RATIO,
        "met": ratio <= RATIO,
    }
    if arguments.json:
        results = {"goals": [goal], "seconds_per_task": {str(count): seconds for count, seconds in found.items()}}
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if goal["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
