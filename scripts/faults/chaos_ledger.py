"""Task of a chaos run, and the ledger that it writes of itself: the truth that verdicts are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LINES_A_START = 1000
"""Start k of a task prints ``line k000``, ``line k001`` …, so that every line tells its place."""

_SCRIPT = """
import os, signal, sys, time

ledger = os.open({ledger!r}, os.O_RDWR | os.O_CREAT | os.O_APPEND)

def ticks(pid):
    # When it began; none if it is gone, or dead and not yet buried.
    try:
        stat = open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()
        return None if stat[0] in "ZX" else stat[19]
    except OSError:
        return None

def note(*words):
    line = " ".join(str(word) for word in (f"{{time.time():.3f}}", os.getpid(), *words))
    os.write(ledger, line.encode() + b"\\n")

def on_signal(number, frame):
    note("signal", number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)

signal.signal(signal.SIGTERM, on_signal)
with open({ledger!r}) as file:
    before = [words for words in map(str.split, file) if words[2] == "start"]
still_alive = [words[1] for words in before if ticks(words[1]) == words[3]]
job = os.environ.get("SLURM_JOB_ID", "?")
note("start", ticks(os.getpid()), job, os.environ.get("SLURMD_NODENAME", "?"), *still_alive)
first = {lines_a_start} * len(before)
for number in range(first, first + {lines}):
    print("line", number, flush=True)
    note("line", number)
    time.sleep({pause})
note("end", {code})
sys.exit({code})
"""


@dataclass(frozen=True)
class Job:
    """What a task does, and where."""

    lines: int
    pause: float
    code: int
    queue: str
    partition: str

    def script(self, ledger: Path) -> str:
        return _SCRIPT.format(
            ledger=str(ledger), lines=self.lines, pause=self.pause, code=self.code, lines_a_start=LINES_A_START
        )


@dataclass
class Start:
    """One process of a task. Times are seconds since 1970."""

    pid: int
    at: float
    job: str
    node: str
    still_alive: Sequence[int] = ()
    """Processes of the same task that lived at that time."""
    lines: list[int] = field(default_factory=list)
    """Certainly printed."""
    printed_at: list[float] = field(default_factory=list)
    last_at: float = 0.0
    """The last sign of life."""
    signalled_at: float | None = None
    """SIGTERM came."""
    ended_at: float | None = None
    code: int | None = None


def read(ledger: Path) -> list[Start]:
    """The starts of a task, in their order."""
    starts: dict[str, Start] = {}
    if not ledger.exists():
        return []
    for line in ledger.read_text(encoding="utf-8").splitlines():
        at, pid, word, *rest = line.split()
        if word == "start":
            starts[pid] = Start(int(pid), float(at), rest[1], rest[2], [int(other) for other in rest[3:]])
        start = starts[pid]
        start.last_at = float(at)
        if word == "line":
            start.lines.append(int(rest[0]))
            start.printed_at.append(float(at))
        elif word == "signal":
            start.signalled_at = float(at)
        elif word == "end":
            start.ended_at, start.code = float(at), int(rest[0])
    return list(starts.values())
