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

from faults.bench import Bench, environment, printed, starts
from faults.crash_judge import COLD, VARIANTS, Point, Result
from faults.crash_point import ESCAPED, SUPERVISOR
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

SITE = Path(__file__).parent / "site"
CONF = """
include "{server}"
api {{ api_server: "{proxy}" }}
hpc {{
    scheduler: local
    root: "{root}"
    cache_dir: "{cache}"
    scratch_dir: "{root}/scratch"
    agent_command: ["{python}", "-m", "faults.crash_point"]
    term_grace: 2
    lost_after: 3
}}
"""
_TRIES = 3
_CANDIDATES = 8
PATIENCE_S = 300.0
"""A task that has not come to its end by then is stuck."""
COMMANDS = ("daemon", "execute", SUPERVISOR)
NOWHERE = Point("none", "", 0, "")


class Run:
    """One task, from its queue to its end, with one crash on the way."""

    def __init__(self, bench: Bench, name: str, variant: str, point: Point) -> None:
        self._bench = bench
        self._variant = variant
        self._point = point
        self.root = bench.folder / "runs" / name
        self.root.mkdir(parents=True)
        self._queue = bench.direct.queues.resolve(name, create=True)
        self._mark = self.root / "crashed"
        self.doors = self.root / "doors"
        self._ledger = self.root / "ledger"
        conf = self.root / "clearml.conf"
        words = {"server": bench.conf, "proxy": bench.proxy.url, "root": self.root, "python": sys.executable}
        cache = (self.root if variant == COLD else bench.folder) / "cache"
        conf.write_text(CONF.format(cache=cache, **words))
        crash = {**vars(point), "mark": str(self._mark), "log": str(self.doors)}
        self._env = environment(CLEARML_CONFIG_FILE=str(conf), HOME=str(self.root), CRASH=json.dumps(crash))
        self._env["PYTHONPATH"] += f"{os.pathsep}{SITE}"

    def result(self) -> Result:
        begun = time.monotonic()
        work = VARIANTS[self._variant]
        task = self._bench.task(self.root.name, self._queue, work.script(self._ledger))
        daemon = self._daemon()
        asked = aborted = False
        try:
            while not self._is_over(task):
                if daemon.poll() is not None:
                    daemon = self._daemon()
                if self._variant == "abort" and not asked and self._bench.lines(task):
                    # The process that should see it may be dead by now, and its daemon about to say so.
                    aborted = self._point.command == "daemon" or not self._mark.exists()
                    self._bench.direct.session.call("tasks.stop", {"task": task})
                    asked = True
                if time.monotonic() - begun > PATIENCE_S:
                    return self._seen(task, begun, aborted=aborted, stuck=True)
                time.sleep(0.1)
        finally:
            daemon.kill()
            daemon.wait()
        return self._seen(task, begun, aborted=aborted)

    def _daemon(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "faults.crash_point", "daemon", "--foreground", "--queue", self._queue]
        with (self.root / "daemon.log").open("ab") as log:
            return subprocess.Popen(
                [*argv, "--polling-interval", "0.2"], env=self._env, cwd=self.root, stdout=log, stderr=log
            )

    def _is_over(self, task: TaskId) -> bool:
        """Final, and its last attempt settled."""
        attempts = list((self.root / "runs" / task).glob("*/submit.json"))
        settled = attempts and all((path.parent / "settled.json").exists() for path in attempts)
        return bool(settled) and self._status(task).is_final

    def _status(self, task: TaskId) -> TaskStatus:
        return self._bench.direct.tasks.get_states([task])[task].status

    def _seen(self, task: TaskId, begun: float, *, aborted: bool, stuck: bool = False) -> Result:
        seen = self._bench.direct.tasks.get_states([task])[task]
        return Result(
            name=self.root.name,
            variant=self._variant,
            point=self._point,
            reached=self._mark.exists(),
            stuck=stuck,
            aborted=aborted,
            status=seen.status.value,
            reason=seen.reason,
            seconds=time.monotonic() - begun,
            started=starts(self._ledger),
            finals=self._bench.finals.of(task),
            on_disk=printed(self.root / "runs", task),
            on_server=self._bench.lines(task),
        )


def points(bench: Bench, variant: str, command: str) -> list[tuple[str, Point]]:
    """All boundaries of the calls that ``command`` makes in a run without a crash."""
    run = Run(bench, f"{variant}-{command}-reference", variant, Point(command, "", 0, ""))
    result = run.result()
    if result.wrong:
        raise RuntimeError(f"the run without a crash went wrong: {result.wrong}; see {run.root}")
    passed = []
    for line in run.doors.read_text().splitlines():
        _, number, label = line.split(" ", 2)
        if number == ESCAPED:
            raise RuntimeError(f"a call to the outside is not counted: {label}; see faults/crash_point.py")
        passed.append((label, int(number)))
    return [(variant, Point(command, label, nth, when)) for label, nth in passed for when in ("before", "after")]


def all_points(
    bench: Bench, variants: Sequence[str] = tuple(VARIANTS), commands: Sequence[str] = COMMANDS, *, at_once: int = 3
) -> list[tuple[str, Point]]:
    # The first run fills the cache that all but the cold ones share.
    Run(bench, "warm", "success", NOWHERE).result()
    pairs = [
        (variant, command) for variant in variants for command in commands if variant != COLD or command == "daemon"
    ]
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
            results.append(Run(bench, f"run-{next(numbers)}", variant, point).result())
            show(results[-1])
            if results[-1].reached:
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
