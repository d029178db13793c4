"""Runs the benchmark of ``scripts/bench/scale``: a real Slurm and a real server for submissions, both in memory for the
cost of passes. All jobs are held. Only an otherwise idle machine gives figures; ratios are of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH", "")])]
)

from faults.arguments import positive
from scale.passes import passes
from scale.site import scale_site
from scale.submission import as_arrays, one_by_one, single

PARTS = ("one-by-one", "arrays", "single", "passes")
ENTRIES = (100, 1_000, 10_000, 100_000)


def run(folder: Path, parts: Sequence[str], tasks: int, rounds: int) -> dict[str, Mapping[str, object]]:
    found: dict[str, Mapping[str, object]] = {}
    if {"one-by-one", "arrays", "single"} & set(parts):
        with scale_site(folder) as site:
            if "one-by-one" in parts:
                found["one-by-one"] = one_by_one(site, tasks, rounds)
            if "arrays" in parts:
                found["arrays"] = as_arrays(site, tasks, rounds)
            if "single" in parts:
                found["single"] = single(site, 10)
    if "passes" in parts:
        found["passes"] = passes(ENTRIES)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only; may be repeated")
    parser.add_argument("--tasks", type=positive, default=1000, help="tasks that become jobs (default: 1000)")
    parser.add_argument("--rounds", type=positive, default=3, help="how often, in turn with the loop (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        found = run(Path(folder), arguments.only or PARTS, arguments.tasks, arguments.rounds)
    goals = [each for part in found.values() for each in _goals(part)]
    for name, part in found.items():
        for key, value in part.items():
            if key != "goals":
                print(f"{name:<11} {key}: {json.dumps(value)}")
    print(f"\n{'value':>9}  {'bound':>7}  met  goal")
    for each in goals:
        print(f"{each['value']:>9}  {each['bound']:>7}  {'yes' if each['met'] else 'NO ':<3}  {each['name']}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"goals": goals, **found}, indent=2) + "\n", encoding="utf-8")
    return 0 if all(each["met"] for each in goals) else 1


def _goals(part: Mapping[str, object]) -> list[dict[str, object]]:
    goals = part["goals"]
    assert isinstance(goals, list)
    return goals


if __name__ == "__main__":
    sys.exit(main())
