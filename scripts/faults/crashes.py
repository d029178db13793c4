"""Kill daemon or executor at each of their calls to the outside, start again, and look at what became of the task."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from faults.bench import Bench, environment, printed, starts
from faults.crash_judge import ARRAY, COLD, VARIANTS, Point, Result
from faults.crash_point import ESCAPED, SINCE, SUPERVISOR
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

SITE = Path(__file__).parent / "site"
CONF = """
include "{server}"
api {{ api_server: "{proxy}" }}
hpc {{
    root: "{root}"
    cache_dir: "{cache}"
    scratch_dir: "{root}/scratch"
    term_grace: 2
    {scheduler}
}}
"""
LOCAL = """
    scheduler: local
    agent_command: ["{python}", "-m", "faults.crash_point"]
    lost_after: 3
"""
# Nothing is staged, so that all tasks are due in the first pass.
SLURM = """
    scheduler: slurm
    agent_command: ["{python}", "-m", "hpc_agent"]
    lost_after: 20
    envs.build_on: compute
    resources {{ num_cpus: 1, memory_gb: 1, time_limit: "00:30:00" }}
    slurm {{ array_size: 10, requests_per_second: 0 }}
"""
_TRIES = 3
_CANDIDATES = 8
PATIENCE_S = 1200.0
"""A task that has not come to its end by then is stuck, also on a machine with thirty times as much to do as it can."""
COMMANDS = ("daemon", "execute", SUPERVISOR)
OF_DAEMON = (COLD, ARRAY)
"""Variants in which only the daemon has another course."""
ELEMENTS = 3
"""Tasks of an array."""
NOWHERE = Point("none", "", 0, "")


class Run:
    """One task, or an array of them, from the queue to the end, with one crash on the way."""

    def __init__(self, bench: Bench, name: str, variant: str, point: Point) -> None:
        self._bench = bench
        self._variant = variant
        self._point = point
        self.root = bench.folder / "runs" / name
        self.root.mkdir(parents=True)
        self._queue = bench.direct.queues.resolve(name, create=True)
        self._mark = self.root / "crashed"
        self.doors = self.root / "doors"
        conf = self.root / "clearml.conf"
        scheduler = (SLURM if variant == ARRAY else LOCAL).format(python=sys.executable)
        words = {"server": bench.conf, "proxy": bench.proxy.url, "root": self.root, "scheduler": scheduler}
        cache = (self.root if variant == COLD else bench.folder) / "cache"
        conf.write_text(CONF.format(cache=cache, **words))
        crash = {**vars(point), "mark": str(self._mark), "log": str(self.doors)}
        self._env = environment(
            CLEARML_CONFIG_FILE=str(conf), HOME=str(self.root), CRASH=json.dumps(crash), **bench.slurm
        )
        self._env["PYTHONPATH"] += f"{os.pathsep}{SITE}"

    def results(self) -> list[Result]:
        """Of each of its tasks."""
        begun = time.monotonic()
        work = VARIANTS[self._variant]
        ledgers = [self.root / f"ledger-{number}" for number in range(ELEMENTS if self._variant == ARRAY else 1)]
        tasks = {self._bench.task(self.root.name, self._queue, work.script(ledger)): ledger for ledger in ledgers}
        daemon = self._daemon()
        asked = aborted = stuck = False
        try:
            while not stuck and not all(map(self._is_over, tasks)):
                if daemon.poll() is not None:
                    daemon = self._daemon()
                if self._variant == "abort" and not asked and any(map(self._bench.lines, tasks)):
                    # The process that should see it may be dead by now, and its daemon about to say so.
                    aborted = self._point.command == "daemon" or not self._mark.exists()
                    for task in tasks:
                        self._bench.direct.session.call("tasks.stop", {"task": task})
                    asked = True
                stuck = time.monotonic() - begun > PATIENCE_S
                time.sleep(0.1)
        finally:
            daemon.kill()
            daemon.wait()
        return [self._seen(task, ledger, begun, aborted=aborted, stuck=stuck) for task, ledger in tasks.items()]

    def _daemon(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "faults.crash_point", "daemon", "--foreground", "--queue", self._queue]
        pace = ["--polling-interval", "0.5" if self._variant == ARRAY else "0.2"]
        with (self.root / "daemon.log").open("ab") as log:
            return subprocess.Popen([*argv, *pace], env=self._env, cwd=self.root, stdout=log, stderr=log)

    def _is_over(self, task: TaskId) -> bool:
        """Final, and its last attempt settled."""
        attempts = list((self.root / "runs" / task).glob("*/submit.json"))
        settled = attempts and all((path.parent / "settled.json").exists() for path in attempts)
        return bool(settled) and self._status(task).is_final

    def _status(self, task: TaskId) -> TaskStatus:
        return self._bench.direct.tasks.get_states([task])[task].status

    def _passed(self) -> int:
        """How often a process passed the door of the point, at most."""
        try:
            lines = self.doors.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return 0
        passed = (line.split(" ", 3) for line in lines)
        return max((int(number) for _, _, number, label in passed if label == self._point.door), default=0)

    def _seen(self, task: TaskId, ledger: Path, begun: float, *, aborted: bool, stuck: bool) -> Result:
        seen = self._bench.direct.tasks.get_states([task])[task]
        return Result(
            name=self.root.name,
            variant=self._variant,
            point=self._point,
            reached=self._mark.exists(),
            passed=self._passed(),
            stuck=stuck,
            aborted=aborted,
            status=seen.status.value,
            reason=seen.reason,
            seconds=time.monotonic() - begun,
            started=starts(ledger),
            finals=self._bench.finals.of(task),
            on_disk=printed(self.root / "runs", task),
            on_server=self._bench.lines(task),
        )


def points(bench: Bench, variant: str, command: str) -> list[tuple[str, Point]]:
    """All boundaries of the calls that ``command`` makes in a run without a crash."""
    run = Run(bench, f"{variant}-{command}-reference", variant, Point(command, "", 0, ""))
    for result in run.results():
        if result.wrong:
            raise RuntimeError(f"the run without a crash went wrong: {result.wrong}; see {run.root}")
    passed = []
    for line in run.doors.read_text(encoding="utf-8").splitlines():
        process, thread, number, label = line.split(" ", 3)
        if number == ESCAPED:
            raise RuntimeError(f"a call to the outside is not counted: {label}; see faults/crash_point.py")
        passed.append(Passage(f"{process} {thread}", label, int(number)))
    return [(variant, Point(command, label, nth, when)) for label, nth, when in boundaries(passed)]


class Passage(NamedTuple):
    """Of a door. ``thread``: of which process and thread. ``number``: how often its process passed it, with this."""

    thread: str
    label: str
    number: int


def boundaries(passed: Sequence[Passage]) -> list[tuple[str, int, str]]:
    """Where what is outside differs, as door, number, and before or after it.

    Between two doors of a thread nothing changes: after one is before the next. What a thread does at the pace of a
    clock changes nothing either, when it comes once more after the same door.
    """
    kept = [each for each in passed if SINCE not in each.label or each.number == 1]
    last = {each.thread: each for each in kept}
    return [
        *((each.label, each.number, "before") for each in kept),
        *((each.label, each.number, "after") for each in last.values()),
    ]


def all_points(
    bench: Bench, variants: Sequence[str] = tuple(VARIANTS), commands: Sequence[str] = COMMANDS, *, at_once: int = 3
) -> list[tuple[str, Point]]:
    # The first run fills the cache that all but the cold ones share.
    Run(bench, "warm", "success", NOWHERE).results()
    pairs = [(v, command) for v in variants for command in commands if v not in OF_DAEMON or command == "daemon"]
    with ThreadPoolExecutor(at_once) as pool:
        return [point for found in pool.map(lambda pair: points(bench, *pair), pairs) for point in found]


def enumerate_crashes(
    bench: Bench, parts: Sequence[Sequence[tuple[str, Point]]], *, at_once: int, show: Callable[[Result], None]
) -> list[list[Result]]:
    """One crash in each part: at the first of its points that comes by."""
    numbers = itertools.count(1)

    def one(part: Sequence[tuple[str, Point]]) -> list[Result]:
        results: list[Result] = []
        for variant, point in part:
            found = Run(bench, f"run-{next(numbers)}", variant, point).results()
            results += found
            for result in found:
                show(result)
            if found[0].reached:
                break
        return results

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, parts))


def each(found: Sequence[tuple[str, Point]]) -> list[list[tuple[str, Point]]]:
    """Every point is a part of its own, and is tried again if it does not come by."""
    return [[item] * _TRIES for item in found]


def sample(found: Sequence[tuple[str, Point]], count: int, seed: int) -> list[list[tuple[str, Point]]]:
    """``count`` parts, spread over all; the seed chooses the points of each that are tried one after another."""
    dice = random.Random(seed)
    count = min(count, len(found))
    edges = [round(index * len(found) / count) for index in range(count + 1)]
    parts = [list(found[first:last]) for first, last in itertools.pairwise(edges)]
    return [dice.sample(part, min(_CANDIDATES, len(part))) for part in parts]
