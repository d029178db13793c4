"""Crash enumeration: daemon, executor and supervisor are killed before and after each of their calls outside.

    scripts/crashes --sample 40            # one crash in each of 40 parts of all of them
    scripts/crashes --all                  # every one, in about three quarters of an hour on two cores
    scripts/crashes --all --variant abort --command execute
    scripts/crashes --all --door submit.json
    scripts/crashes --replay FOLDER        # judge again what an earlier enumeration has left

A task runs from its queue to its end through the local scheduler, and three tasks as a job array through a real Slurm.
A killed daemon is started again; then the ledger is looked at: the task's process started once, one final status, no
line of its console lost or doubled. A boundary that was not reached in three runs is named with the reason.

Exit code 1 if any of it is not so, if there is no such reason, or if in one of the parts of a sample nothing was
killed: then the folder with run directories, ledgers and logs is left, and named. 4 if only job arrays are asked for,
and Slurm is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from faults.arguments import positive
from faults.bench import bench
from faults.crash_judge import ARRAY, VARIANTS, Findings, Result, line, line_of_unreached
from faults.crashes import COMMANDS, all_points, each, enumerate_crashes, sample
from faults.kept import run_in_folder
from slurm_cluster.errors import MissingProgramError
from slurm_cluster.layout import Cluster
from slurm_cluster.lifecycle import start, stop
from slurm_cluster.releases import VERSION_VARIABLE

USAGE = 2
NOT_INSTALLED = 4


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
    parser.add_argument("--door", action="append", metavar="TEXT", help="only at doors whose label has this text")
    parser.add_argument("--at-once", type=positive, default=3, metavar="N", help="runs side by side (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder, and leave it whatever happens")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="run nothing: judge what lies in this folder")
    return parser.parse_args()


def show(result: Result) -> None:
    print(line(result), flush=True)


def run(options: argparse.Namespace, folder: Path) -> int:
    begun = time.monotonic()
    variants, commands = options.variant or list(VARIANTS), options.command or COMMANDS
    cluster = Cluster(folder / "slurm", os.environ.get(VERSION_VARIABLE, ""))
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(bench(folder))
        if ARRAY in variants:
            try:
                stack.enter_context(running(cluster))
            except MissingProgramError as error:
                if options.variant:
                    print(f"crashes: {error}", file=sys.stderr)
                    return NOT_INSTALLED
                print(f"Without job arrays: {error}", flush=True)
                variants.remove(ARRAY)
            else:
                site.slurm = {"SLURM_CONF": str(cluster.conf), "PATH": cluster.path}
        found = all_points(site, variants, commands, at_once=options.at_once)
        if options.door:
            found = [item for item in found if any(text in item[1].door for text in options.door)]
        print(f"{len(found)} boundaries", flush=True)
        parts = each(found) if options.all else sample(found, options.sample, options.seed)
        results = enumerate_crashes(site, parts, at_once=options.at_once, show=show)
    Findings(len(found), results, every=options.all).save(folder)
    code = show_result(options, Findings.load(folder))
    print(f"{time.monotonic() - begun:.0f} s")
    return code


@contextlib.contextmanager
def running(cluster: Cluster) -> Iterator[None]:
    """
    Raises:
        MissingProgramError: Slurm is not installed.
    """
    cluster.dir.mkdir(parents=True)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            start(cluster)
        yield
    finally:
        with contextlib.redirect_stderr(io.StringIO()):
            stop(cluster, [])


def replay(options: argparse.Namespace) -> int:
    try:
        findings = Findings.load(options.replay)
    except OSError as error:
        print(f"crashes: {options.replay} holds no evidence of a run that came to its end: {error}", file=sys.stderr)
        return USAGE
    return show_result(options, findings)


def show_result(options: argparse.Namespace, findings: Findings) -> int:
    figures = findings.figures()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    print()
    for result in findings.results:
        if result.wrong:
            show(result)
    for boundary in findings.unreached:
        print(line_of_unreached(boundary))
    verdicts = ("crashes", "without a verdict", "parts without a crash")
    names = ("boundaries", *verdicts, "lost lines", "doubled lines", "run twice", "wrong")
    print(", ".join(f"{name} {figures[name]}" for name in names))
    return 0 if all(goal["met"] for goal in figures["goals"]) else 1


def main() -> int:
    options = arguments()
    if options.replay:
        return replay(options)
    return run_in_folder("crashes", f"seed{options.seed}", options.keep, lambda folder: run(options, folder))


if __name__ == "__main__":
    sys.exit(main())
