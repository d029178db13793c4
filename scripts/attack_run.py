"""Hostile inputs at every door: task fields, user properties, containers, requirement lines, diffs, archives, HTTP …

    scripts/attack                              # all doors
    scripts/attack task_fields "user properties"    # some, by module or by name
    scripts/attack --json figures.json

Each case is one input that an attacker may send on purpose; scripts/attacks/ has a table of them for each door. The
product itself is run with it, and what got in is printed. Exit code 1 if anything got in or a case could not tell, 2
for a door that does not exist.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from attacks.doors import Attempt, Door, UnknownDoorError, attempts, figures, find_doors


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="attack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("doors", nargs="*", metavar="DOOR", help="only these (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--verbose", action="store_true", help="a line for each case")
    return parser.parse_args()


class Progress:
    """One line that is written over and over on a terminal; nothing elsewhere."""

    def __init__(self, cases: int, *, verbose: bool) -> None:
        self._cases = cases
        self._done = 0
        self._verbose = verbose
        self._terminal = sys.stdout.isatty()

    def show(self, attempt: Attempt) -> None:
        self._done += 1
        if self._verbose:
            word = "ADMITTED" if attempt.admitted else "BROKEN" if attempt.broken else "refused"
            print(f"{word:<8}  {attempt.door.name}: {attempt.case.name!a}", flush=True)
        elif self._terminal:
            line = f"{self._done} of {self._cases}  {attempt.door.name}: {attempt.case.name!a}"
            print(f"\r\033[K{line[:100]}", end="", flush=True)

    def end(self) -> None:
        if self._terminal and not self._verbose:
            print("\r\033[K", end="")

    def paint(self, text: str, *, bad: bool) -> str:
        return f"\033[{31 if bad else 32}m{text}\033[0m" if self._terminal else text


def report(doors: Sequence[Door], tried: Sequence[Attempt], progress: Progress) -> None:
    for attempt in tried:
        if attempt.admitted or attempt.broken:
            what = f"admitted: {attempt.admitted}" if attempt.admitted else f"broken:\n{attempt.broken}"
            print(progress.paint(f"{attempt.door.name}: {attempt.case.name!a}: {what}", bad=True))
    print(f"\n{'DOOR':<34}{'TRIED':>8}{'ADMITTED':>10}{'BROKEN':>8}")
    rows = [(door.name, [attempt for attempt in tried if attempt.door is door]) for door in doors]
    for name, found in [*rows, ("all", list(tried))]:
        admitted, broken = sum(bool(a.admitted) for a in found), sum(bool(a.broken) for a in found)
        line = f"{name:<34}{len(found):>8}{admitted:>10}{broken:>8}"
        print(progress.paint(line, bad=bool(admitted or broken)))


def run(options: argparse.Namespace) -> int:
    begun = time.monotonic()
    chosen = find_doors(options.doors)
    doors = [door for door in chosen if door.can_be_tried]
    progress = Progress(sum(len(door.cases) for door in doors), verbose=options.verbose)
    tried: list[Attempt] = []
    for door in doors:
        for attempt in attempts(door):
            tried.append(attempt)
            progress.show(attempt)
    progress.end()
    report(doors, tried, progress)
    for door in chosen:
        if not door.can_be_tried:
            print(f"left out, for want of root: {door.name}")
    found = figures(tried, all_doors=not options.doors)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
    for goal in found["goals"]:
        if not goal["met"]:
            print(progress.paint(f"{goal['name']}: {goal['value']}, where the bound is {goal['bound']}", bad=True))
    print(f"({time.monotonic() - begun:.0f} s)")
    return 0 if all(goal["met"] for goal in found["goals"]) else 1


def main() -> int:
    # What the product logs of hostile input is not what is asked here.
    logging.getLogger("hpc_agent").addHandler(logging.NullHandler())
    try:
        return run(arguments())
    except UnknownDoorError as error:
        print(f"attack: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
