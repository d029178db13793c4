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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from faults.bench import Bench, Work, environment, printed, starts
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
    slurm {{ lost_after: 3 }}
}}
"""
PATIENCE_S = 120.0
"""A task that has not come to its end by then is stuck."""
COLD = "cold"
"""A success for which environment and source are not staged yet."""
VARIANTS = {"success": Work(), "failure": Work(code=3), "abort": Work(lines=400, pause=0.1), COLD: Work()}
ENDS = {"success": "completed", "failure": "failed", "abort": "stopped", COLD: "completed"}
COMMANDS = ("daemon", "execute", SUPERVISOR)
DIED = ("left no report", "its supervisor was killed")
"""How the reason of a task begins whose process was killed with its executor, or lost with its supervisor."""


@dataclass(frozen=True)
class Point:
    """Where a process is killed: ``when`` (before or after) ``command`` passes ``door`` for the ``nth`` time."""

    command: str
    door: str
    nth: int
    when: str


NOWHERE = Point("none", "", 0, "")


@dataclass(frozen=True)
class Result:
    variant: str
    point: Point
    reached: bool
    status: str
    reason: str
    seconds: float
    started: int
    finals: int
    lost: int
    """Lines that were printed and are not on the server."""
    doubled: int
    wrong: str = ""
    """What is not as it must be."""


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
                    # Whoever was to hear it may be dead by now, and its daemon about to say so.
                    aborted = self._point.command == "daemon" or not self._mark.exists()
                    self._bench.direct.session.call("tasks.stop", {"task": task})
                    asked = True
                if time.monotonic() - begun > PATIENCE_S:
                    return self._judged(task, begun, aborted, "stuck")
                time.sleep(0.1)
        finally:
            daemon.kill()
            daemon.wait()
        return self._judged(task, begun, aborted)

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
        return self._bench.direct.tasks.glimpse([task])[task].status

    def _judged(self, task: TaskId, begun: float, aborted: bool, wrong: str = "") -> Result:
        seen = self._bench.direct.tasks.glimpse([task])[task]
        on_disk, on_server = printed(self.root / "runs", task), self._bench.lines(task)
        result = Result(
            variant=self._variant,
            point=self._point,
            reached=self._mark.exists(),
            status=seen.status.value,
            reason=seen.reason,
            seconds=time.monotonic() - begun,
            started=starts(self._ledger),
            finals=self._bench.finals.of(task),
            lost=len(set(on_disk) - set(on_server)),
            doubled=len(on_server) - len(set(on_server)),
        )
        wrong = wrong or self._wrong(result, aborted) or ("" if on_server == on_disk else "lines lost or out of order")
        return replace(result, wrong=wrong)

    def _wrong(self, result: Result, aborted: bool) -> str:
        expected = ENDS[self._variant]
        # Killed while it had the task's process: it cannot say how that would have ended, and nobody else can.
        # An abort that came after it ended has no reason of its own, and the server forgets the one that was there.
        said = any(words in result.reason for words in DIED) or (self._variant == "abort" and not result.reason)
        died = self._point.command in ("execute", SUPERVISOR) and said
        if result.started != 1 and not (result.started == 0 and died):
            return f"started {result.started} times"
        if result.status != expected and not (result.status == "failed" and died and not aborted):
            return f"status {result.status} ({result.reason}), expected {expected}"
        if result.finals != 1:
            return f"{result.finals} final statuses"
        return ""


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
    bench: Bench, chosen: Sequence[tuple[str, Point]], *, at_once: int, show: Callable[[Result], None]
) -> list[Result]:
    numbers = itertools.count(1)

    def one(item: tuple[str, Point]) -> Result:
        variant, point = item
        result = Run(bench, f"run-{next(numbers)}", variant, point).result()
        show(result)
        return result

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, chosen))


def sample(found: Sequence[tuple[str, Point]], count: int, seed: int) -> list[tuple[str, Point]]:
    """Spread over all of them: one out of each of ``count`` parts."""
    if count >= len(found):
        return list(found)
    dice = random.Random(seed)
    edges = [round(index * len(found) / count) for index in range(count + 1)]
    return [found[dice.randrange(first, last)] for first, last in itertools.pairwise(edges)]


def line(result: Result) -> str:
    """For a table."""
    point = result.point
    word = f"WRONG: {result.wrong}" if result.wrong else "ok" if result.reached else "not reached"
    door = f"{point.door} ({point.nth})"
    return (
        f"{result.variant:<8} {point.command:<10} {point.when:<6} {door:<36.36} {result.status:<10} "
        f"{result.seconds:5.1f} s  {word}"
    )


def summary(results: Sequence[Result], boundaries: int) -> dict[str, Any]:
    crashes = [result for result in results if result.reached]
    figures = {
        "lost lines": sum(result.lost for result in results),
        "doubled lines": sum(result.doubled for result in results),
        "run twice": sum(result.started > 1 for result in results),
        "wrong": sum(bool(result.wrong) for result in results),
    }
    return {
        "goals": [
            {"name": f"crash enumeration: {name}", "value": value, "bound": 0, "met": value == 0}
            for name, value in figures.items()
        ],
        "boundaries": boundaries,
        "crashes": len(crashes),
        "not reached": len(results) - len(crashes),
        **figures,
        "what went wrong": [asdict(result) for result in results if result.wrong],
    }
