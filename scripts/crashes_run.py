"""Crash enumeration: daemon, executor and supervisor are killed before and after each of their calls outside.

    scripts/crashes --sample 40            # one crash in each of 40 parts of all of them
    scripts/crashes --all                  # every one, in about three quarters of an hour on two cores
    scripts/crashes --all --variant abort --command execute

A task runs from its queue to its end through the local scheduler; a killed daemon is started again; then the ledger is
looked at: the task's process started once, one final status, no line of its console lost or doubled. Exit code 1 if any
of it is not so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from faults.arguments import positive
from faults.bench import bench
from faults.crashes import COMMANDS, VARIANTS, Result, all_points, enumerate_crashes, line, sample, summary


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="crashes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--all", action="store_true", help="every boundary")
    amount.add_argument("--sample", type=positive, default=40, metavar="N", help="so many of them (40)")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="only this course of the task")
    parser.add_argument("--command", choices=COMMANDS, action="append", help="only crashes of this command")
    parser.add_argument("--at-once", type=positive, default=3, metavar="N", help="runs side by side (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder, and leave it")
    return parser.parse_args()


def show(result: Result) -> None:
    print(line(result), flush=True)


def run(options: argparse.Namespace, folder: Path) -> int:
    begun = time.monotonic()
    with bench(folder) as site:
        variants, commands = options.variant or list(VARIANTS), options.command or COMMANDS
        found = all_points(site, variants, commands, at_once=options.at_once)
        print(f"{len(found)} boundaries", flush=True)
        chosen = found if options.all else sample(found, options.sample, options.seed)
        results = enumerate_crashes(site, chosen, at_once=options.at_once, show=show)
    figures = summary(results, len(found))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    for result in results:
        if result.wrong:
            show(result)
    shown = ("boundaries", "crashes", "not reached", "lost lines", "doubled lines", "run twice", "wrong")
    print(f"\n{', '.join(f'{name} {figures[name]}' for name in shown)} ({time.monotonic() - begun:.0f} s)")
    return 0 if all(goal["met"] for goal in figures["goals"]) else 1


def main() -> int:
    options = arguments()
    if options.keep:
        return run(options, options.keep.absolute())
    with tempfile.TemporaryDirectory(prefix="crashes") as folder:
        return run(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
