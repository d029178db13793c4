"""Kill daemon or executor at each of their calls to the outside, start again, and look at what became of the task."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from faults.bench import Bench, Work, environment, printed, starts
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.status import TaskStatus

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
PATIENCE_S = 60.0
"""A task that has not come to its end by then is stuck."""
VARIANTS = {"success": Work(), "failure": Work(code=3), "abort": Work(lines=400, pause=0.1)}
NO_REPORT = "left no report"


@dataclass(frozen=True)
class Point:
    """Where a process is killed: at call ``at`` of ``command``, ``when`` before or after it."""

    command: str
    at: int
    when: str


@dataclass(frozen=True)
class Result:
    variant: str
    point: Point | None
    door: str
    """What the call was; empty when the process did not get there."""
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

    @property
    def reached(self) -> bool:
        return self.point is None or bool(self.door)


class Run:
    """One task, from its queue to its end, with one crash on the way."""

    def __init__(self, bench: Bench, name: str, variant: str, point: Point | None) -> None:
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
        conf.write_text(CONF.format(cache=bench.folder / "cache", **words))
        at = point or Point("none", 0, "")
        crash = {"command": at.command, "at": at.at, "when": at.when, "mark": str(self._mark), "log": str(self.doors)}
        self._env = environment(CLEARML_CONFIG_FILE=str(conf), HOME=str(self.root), CRASH=json.dumps(crash))

    def result(self) -> Result:
        begun = time.monotonic()
        work = VARIANTS[self._variant]
        task = self._bench.task(self.root.name, self._queue, work.script(self._ledger))
        daemon = self._daemon()
        aborted = False
        try:
            while not self._is_over(task):
                if daemon.poll() is not None:
                    daemon = self._daemon()
                if self._variant == "abort" and not aborted and self._bench.lines(task):
                    self._bench.direct.session.call("tasks.stop", {"task": task})
                    aborted = True
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
            door=self._door(),
            status=seen.status.value,
            reason=seen.reason,
            seconds=time.monotonic() - begun,
            started=starts(self._ledger),
            finals=self._bench.finals.of(task),
            lost=len(set(on_disk) - set(on_server)),
            doubled=len(on_server) - len(set(on_server)),
        )
        wrong = wrong or self._wrong(result, aborted) or ("" if on_server == on_disk else "lines out of order")
        return Result(**{**vars(result), "wrong": wrong})

    def _wrong(self, result: Result, aborted: bool) -> str:
        expected = {"success": "completed", "failure": "failed", "abort": "stopped"}[self._variant]
        # Killed while it had the task's process: it cannot say how that would have ended, and nobody else can.
        died = self._point is not None and self._point.command == "execute" and NO_REPORT in result.reason
        if result.started != 1:
            return f"started {result.started} times"
        if result.status != expected and not (result.status == "failed" and died and not aborted):
            return f"status {result.status} ({result.reason}), expected {expected}"
        if result.finals != 1:
            return f"{result.finals} final statuses"
        return ""

    def _door(self) -> str:
        if self._point is None or not self._mark.exists():
            return ""
        for line in self.doors.read_text().splitlines():
            _, number, label = line.split(" ", 2)
            if int(number) == self._point.at:
                return label
        return ""


def doors(bench: Bench, variant: str, command: str) -> list[str]:
    """The calls that ``command`` makes in a run without a crash."""
    run = Run(bench, f"{variant}-{command}-reference", variant, Point(command, 0, ""))
    result = run.result()
    if result.wrong:
        raise RuntimeError(f"the run without a crash went wrong: {result.wrong}; see {run.root}")
    lines = [line.split(" ", 2) for line in run.doors.read_text().splitlines()]
    first = lines[0][0]
    return [label for pid, _, label in lines if pid == first]


def points(bench: Bench, variants: Sequence[str], commands: Sequence[str]) -> list[tuple[str, Point]]:
    found = []
    for variant in variants:
        for command in commands:
            count = len(doors(bench, variant, command))
            found += [(variant, Point(command, k, when)) for k in range(1, count + 1) for when in ("before", "after")]
    return found


def enumerate_crashes(
    bench: Bench, chosen: Sequence[tuple[str, Point]], *, at_once: int, show: Callable[[Result], None]
) -> list[Result]:
    def one(item: tuple[str, Point]) -> Result:
        variant, point = item
        name = f"{variant}-{point.command}-{point.at}-{point.when}"
        result = Run(bench, name, variant, point).result()
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


def summary(results: Sequence[Result], boundaries: int) -> dict[str, object]:
    reached = [result for result in results if result.reached]
    return {
        "boundaries": boundaries,
        "crashes": len(reached),
        "not reached": len(results) - len(reached),
        "lost": sum(result.lost for result in results),
        "doubled": sum(result.doubled for result in results),
        "run twice": sum(result.started > 1 for result in results),
        "wrong": [vars(result) | {"point": vars(result.point)} for result in results if result.wrong and result.point],
    }
