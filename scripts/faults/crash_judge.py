"""Was a task whose daemon or agent was killed lost, run twice, given a wrong end? Pure; takes values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.bench import Work
from faults.crash_point import SINCE, SUPERVISOR
from faults.kept import EVIDENCE

COLD = "cold"
"""A success for which environment and source are not staged yet."""
ARRAY = "array"
"""Successes of several tasks, which travel to a real Slurm as one job array."""
VARIANTS = {
    "success": Work(),
    "failure": Work(code=3),
    "abort": Work(lines=400, pause=0.1),
    COLD: Work(),
    ARRAY: Work(),
}
ENDS = {"success": "completed", "failure": "failed", "abort": "stopped", COLD: "completed", ARRAY: "completed"}
DIED = ("left no report", "its supervisor was killed")
"""How the reason of a task begins whose process was killed with its executor, or lost with its supervisor."""


@dataclass(frozen=True)
class Point:
    """Where a process is killed: ``when`` (before or after) ``command`` passes ``door`` for the ``nth`` time."""

    command: str
    door: str
    nth: int
    when: str


@dataclass(frozen=True)
class Result:
    """What was seen of one task of a run."""

    name: str
    """Of the run's folder."""
    variant: str
    point: Point
    reached: bool
    """Whether the process was killed: what comes at the pace of a clock may not come again."""
    passed: int
    """How often a process of the run passed the door, at most."""
    stuck: bool
    """The task had not come to its end when its time was over."""
    aborted: bool
    """The task was aborted while a process was there to see it."""
    status: str
    reason: str
    seconds: float
    started: int
    finals: int
    """Final statuses that the server accepted."""
    on_disk: Sequence[str]
    """The lines that the task printed …"""
    on_server: Sequence[str]
    """… and those that the server shows."""

    @property
    def lost(self) -> int:
        return len({*self.on_disk} - {*self.on_server})

    @property
    def doubled(self) -> int:
        return len(self.on_server) - len({*self.on_server})

    @property
    def wrong(self) -> str:
        """What is not as it must be, or nothing."""
        if self.stuck:
            return "stuck"
        expected = ENDS[self.variant]
        # Killed while it had the task's process: how that would have ended is not known.
        # An abort that came after it ended has no reason of its own, and the server forgets the one that was there.
        said = any(words in self.reason for words in DIED) or (self.variant == "abort" and not self.reason)
        died = self.point.command in ("execute", SUPERVISOR) and said
        if self.started != 1 and not (self.started == 0 and died):
            return f"started {self.started} times"
        if self.status != expected and not (self.status == "failed" and died and not self.aborted):
            return f"status {self.status} ({self.reason}), expected {expected}"
        if self.finals != 1:
            return f"{self.finals} final statuses"
        return "" if [*self.on_server] == [*self.on_disk] else "lines lost or out of order"


@dataclass(frozen=True)
class Unreached:
    """A boundary at which no process was killed, in any of its runs. Without a ``reason`` nothing is known of it."""

    variant: str
    point: Point
    reason: str


@dataclass(frozen=True)
class Findings:
    """All runs of an enumeration, by the parts of all boundaries that they represent."""

    boundaries: int
    parts: Sequence[Sequence[Result]]
    every: bool
    """Each boundary is a part of its own."""

    @property
    def results(self) -> list[Result]:
        return [result for part in self.parts for result in part]

    @property
    def unreached(self) -> list[Unreached]:
        """Of an enumeration of every boundary."""
        reached = [result for result in self.results if result.reached]
        parts = [part for part in self.parts if self.every and not any(result.reached for result in part)]
        return [Unreached(part[0].variant, part[0].point, _reason(part, reached)) for part in parts]

    def save(self, folder: Path) -> None:
        (folder / EVIDENCE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Findings:
        """
        Raises:
            OSError: the folder holds no evidence; the run that made it did not come to its end.
        """
        described = json.loads((folder / EVIDENCE).read_text(encoding="utf-8"))
        parts = [
            [Result(**{**result, "point": Point(**result["point"])}) for result in part] for part in described["parts"]
        ]
        return cls(described["boundaries"], parts, described["every"])

    def figures(self) -> dict[str, Any]:
        results = self.results
        wrong = {
            "lost lines": sum(result.lost for result in results),
            "doubled lines": sum(result.doubled for result in results),
            "run twice": sum(result.started > 1 for result in results),
            "wrong": sum(bool(result.wrong) for result in results),
        }
        without = sum(not any(result.reached for result in part) for part in self.parts)
        unknown = sum(not each.reason for each in self.unreached)
        # Of all boundaries some belong to a course of events that does not come again.
        missed = {"without a verdict": unknown} if self.every else {"parts without a crash": without}
        goals = {**wrong, **missed}
        return {
            "goals": [
                {"name": f"crash enumeration: {name}", "value": value, "bound": 0, "met": value == 0}
                for name, value in goals.items()
            ],
            "boundaries": self.boundaries,
            "crashes": len({result.name for result in results if result.reached}),
            "parts without a crash": without,
            "without a verdict": unknown,
            "not reached": [asdict(each) for each in self.unreached],
            **wrong,
            "what went wrong": [{**asdict(result), "wrong": result.wrong} for result in results if result.wrong],
        }


def _reason(part: Sequence[Result], reached: Sequence[Result]) -> str:
    """Why a boundary was not reached; empty where that is not known. ``reached``: those where processes were killed.

    What comes at the pace of a clock, or of processes that race, comes less often in some runs, or after another door.
    """
    point, passed = part[0].point, max(result.passed for result in part)
    label, since, before = point.door.partition(SINCE)
    runs = len({result.name for result in part})
    alike = [
        other.point
        for other in reached
        if (other.variant, other.point.command) == (part[0].variant, point.command)
        and other.point.door.partition(SINCE)[0] == label
    ]
    if since:
        no_gap = f"it did not come between {before} and the next door in {runs} runs; killed there after other doors"
        return no_gap if alike and not passed else ""
    last = max((other.nth for other in alike if other.when == point.when), default=0)
    if passed >= point.nth or not last:
        return ""
    return f"passed {passed} times at most in {runs} runs; killed there up to passage {last}"


def line_of_unreached(boundary: Unreached) -> str:
    """For a table."""
    point = boundary.point
    return (
        f"{boundary.variant:<8} {point.command:<10} {point.when:<6} {point.door} ({point.nth}): "
        f"{boundary.reason or 'NOT REACHED, for no known reason'}"
    )


def line(result: Result) -> str:
    """For a table."""
    point = result.point
    word = f"WRONG: {result.wrong}; see {result.name}" if result.wrong else "ok" if result.reached else "not reached"
    door = f"{point.door} ({point.nth})"
    return (
        f"{result.variant:<8} {point.command:<10} {point.when:<6} {door:<36.36} {result.status:<10} "
        f"{result.seconds:5.1f} s  {word}"
    )
