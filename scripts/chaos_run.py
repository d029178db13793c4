"""Chaos on a real Slurm cluster: tasks run while everything that they depend on is stopped, killed and started again.

    scripts/chaos --tasks 200 --seed 1           # some ten minutes on two cores
    scripts/chaos --tasks 60 --seed 1 --peers    # the same, through the way of other programs of this kind
    scripts/chaos --tasks 60 --seed 1 --load     # on a machine that has other things to do
    scripts/chaos --tasks 60 --seed 1 --pilots   # some tasks run in pilots, which are killed too
    scripts/chaos --tasks 60 --seed 1 --nodes 2  # half of the tasks run on two nodes, and ranks are killed too
    scripts/chaos --replay FOLDER                # judge again what an earlier run has left

Starts a cluster of three nodes, a server and a daemon of its own. The seed chooses tasks and faults. Every task writes
down when it began, what it printed and how it ended; in the end that is compared with what the server shows. Exit code
1 if a task is lost, ran twice or has a wrong verdict; 4 where Slurm is not installed. A run that fails leaves its
folder, with the tasks' ledgers, the run directories and all logs, and names it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path

from faults.arguments import positive
from faults.chaos import Progress, Result, chaos
from faults.chaos_judge import Wrong
from faults.kept import run_in_folder
from slurm_cluster.errors import ClusterError, MissingProgramError
from slurm_cluster.layout import Cluster
from slurm_cluster.lifecycle import start, stop
from slurm_cluster.releases import VERSION_VARIABLE

NOT_INSTALLED = 4
USAGE = 2
SITE = "site"
"""Where the evidence lies in the folder of a run."""
_EVERY_S = 15.0
"""Between two lines of progress, where they cannot be written over each other."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=positive, default=200, metavar="N", help="so many tasks (200)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which tasks and faults (1)")
    parser.add_argument("--peers", action="store_true", help="pop, started, sbatch, remember: how others do it")
    parser.add_argument(
        "--load", action="store_true", help="with busy loops on all processors; calls of server and Slurm are slow"
    )
    parser.add_argument(
        "--nodes", type=int, choices=(1, 2, 3), default=1, metavar="N", help="half of the tasks run on 2 to N nodes (1)"
    )
    parser.add_argument("--pilots", action="store_true", help="some tasks run in pilots, which are killed too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this folder, and leave it whatever happens")
    parser.add_argument("--replay", type=Path, metavar="DIR", help="run nothing: judge what lies in this folder")
    found = parser.parse_args()
    if found.peers and found.nodes > 1:
        parser.error("--nodes is not for --peers: other programs start no ranks")
    if found.peers and found.pilots:
        parser.error("--pilots is not for --peers: other programs have none")
    return found


class Teller:
    """One line that is written over and over on a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._shown_at = 0.0

    def show(self, progress: Progress) -> None:
        line = (
            f"{progress.seconds:4.0f} s  tasks {progress.enqueued} of {progress.tasks}, ended {progress.final}, "
            f"jobs {progress.jobs}, faults {progress.faults} of {progress.planned}: {', '.join(progress.now) or '-'}"
        )
        if self._terminal:
            print(f"\r\033[K{line[:150]}", end="", flush=True)
        elif time.monotonic() - self._shown_at > _EVERY_S:
            self._shown_at = time.monotonic()
            print(line, flush=True)

    def end(self) -> None:
        if self._terminal:
            print()

    def paint(self, text: str, *, bad: bool) -> str:
        return f"\033[{31 if bad else 32}m{text}\033[0m" if self._terminal else text


_COLUMNS = ("made", "tasks", "completed", "failed", "stopped", "open", "started again", "wrong")


def report(result: Result, teller: Teller) -> None:
    print(f"\n{'FAULT':<32}{''.join(f'{name.upper():>{len(name) + 3}}' for name in _COLUMNS)}")
    for row in result.table():
        print(f"{row['fault']:<32}" + "".join(f"{row[name]:>{len(name) + 3}}" for name in _COLUMNS))
    print()
    ledgers = {record.task: record.ledger for record in result.evidence.tasks}
    for story, kind, text in result.wrong():
        where = f"task {story.task} (queue {story.job.queue}, {ledgers[story.task]})"
        print(teller.paint(f"{kind.value}: {where}: {text}", bad=True))
    figures = result.figures()
    print(
        f"{figures['tasks']} tasks, {figures['starts']} starts, {figures['faults made']} faults "
        f"({figures['faults that found nothing to hit']} more found nothing to hit), {figures['seconds']} s; "
        f"{figures['cut at their end']} starts were cut off at their very end, {figures['jobs left']} jobs left, "
        f"{figures['daemons that ended by themselves']} daemons ended by themselves"
    )
    words = ", ".join(f"{kind.value} {result.count(kind)}" for kind in Wrong)
    if result.count(Wrong.LOST):
        words += f" (lost: {figures['without an end']} without an end, the others by lines of their console)"
    print(teller.paint(words, bad=not result.is_right))


def run(options: argparse.Namespace, folder: Path) -> int:
    cluster = Cluster(folder / "slurm", os.environ.get(VERSION_VARIABLE, ""))
    cluster.dir.mkdir(parents=True, exist_ok=True)
    teller = Teller()
    policy = "peers" if options.peers else "hpc-agent"
    try:
        start(cluster)
        # Daemons are started and stopped all the time now, and each would say so.
        with contextlib.redirect_stderr(io.StringIO()):
            result = chaos(
                folder / SITE,
                cluster,
                tasks=options.tasks,
                seed=options.seed,
                policy=policy,
                show=teller.show,
                load=options.load,
                most_nodes=options.nodes,
                pilots=options.pilots,
            )
    except ClusterError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return NOT_INSTALLED if isinstance(error, MissingProgramError) else 1
    finally:
        with contextlib.redirect_stderr(io.StringIO()):
            stop(cluster, [])
    teller.end()
    return show_result(options, result, teller)


def replay(options: argparse.Namespace) -> int:
    try:
        result = Result(options.replay / SITE)
    except OSError as error:
        print(f"chaos: {options.replay} holds no evidence of a run that came to its end: {error}", file=sys.stderr)
        return USAGE
    return show_result(options, result, Teller())


def show_result(options: argparse.Namespace, result: Result, teller: Teller) -> int:
    report(result, teller)
    if options.json:
        options.json.write_text(json.dumps(result.figures(), indent=2) + "\n")
    return 0 if result.is_right else 1


def main() -> int:
    options = arguments()
    if options.replay:
        return replay(options)
    return run_in_folder("chaos", f"seed{options.seed}", options.keep, lambda folder: run(options, folder))


if __name__ == "__main__":
    sys.exit(main())
