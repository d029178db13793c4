"""Task of a chaos run, and the ledger that each of its ranks writes: the truth that verdicts are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

LINES_A_START = 1000
"""Start k of a task prints ``line k000``, ``line k001`` …, so that every line tells its place."""

_SCRIPT = """
import os, signal, sys, time

paths = {ledgers!r}
path = paths[int(os.environ.get("RANK", "0"))]
ledger = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

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

def starts(path):
    try:
        with open(path) as file:
            return [words for words in map(str.split, file) if words[2] == "start"]
    except FileNotFoundError:
        return []

signal.signal(signal.SIGTERM, on_signal)
job = os.environ.get("SLURM_JOB_ID", "?")
restart = os.environ.get("SLURM_RESTART_COUNT", "0")
if ":pilot:" in os.environ.get("CLEARML_WORKER_ID", ""):
    # The pilot's job, and this task's own id in it.
    job, restart = os.environ["CLEARML_WORKER_ID"].split(":")[-2:]
first = {lines_a_start} * len(starts(path))
# Those of this start, [job, restart], are its other ranks.
earlier = [words for words in sum(map(starts, paths), []) if [words[4], words[6]] != [job, restart]]
still_alive = [words[1] for words in earlier if ticks(words[1]) == words[3]]
note("start", ticks(os.getpid()), job, os.environ.get("SLURMD_NODENAME", "?"), restart, *still_alive)
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
    nodes: int = 1
    """With a rank on each."""

    def script(self, ledger: Path) -> str:
        return _SCRIPT.format(
            ledgers=[str(ledger_of(ledger, rank)) for rank in range(self.nodes)],
            lines=self.lines,
            pause=self.pause,
            code=self.code,
            lines_a_start=LINES_A_START,
        )


@dataclass
class Start:
    """One process of a task. Times are seconds since 1970."""

    pid: int
    at: float
    job: str
    node: str
    """Several, with commas, where it is the start of all ranks."""
    restart: str = "0"
    """Slurm's count of the job's restarts; in a pilot the id of the task's job."""
    still_alive: Sequence[int] = ()
    """Processes of earlier starts, of any rank, that lived at that time."""
    lines: list[int] = field(default_factory=list)
    """Certainly printed."""
    printed_at: list[float] = field(default_factory=list)
    last_at: float = 0.0
    """The last sign of life."""
    whole: bool = True
    """Every rank has begun."""
    signalled_at: float | None = None
    """SIGTERM came."""
    ended_at: float | None = None
    code: int | None = None

    @property
    def nodes(self) -> Sequence[str]:
        return self.node.split(",")


def ledger_of(ledger: Path, rank: int) -> Path:
    """Ledger of one rank; ``ledger``: that of rank 0."""
    return ledger.with_name(f"{ledger.name}.{rank}") if rank else ledger


def read_ranks(ledger: Path, nodes: int) -> list[list[Start]]:
    """The starts of each rank."""
    return [read(ledger_of(ledger, rank)) for rank in range(nodes)]


def starts_of_all(ranks: Sequence[Sequence[Start]]) -> list[Start]:
    """The starts of a task, in their order, each with the processes of all its ranks; lines are those of rank 0."""
    found: dict[tuple[str, str], list[Start]] = {}
    for starts in ranks:
        for start in starts:
            found.setdefault((start.job, start.restart), []).append(start)
    together = [_together(starts, whole=len(starts) == len(ranks)) for starts in found.values()]
    return sorted(together, key=lambda start: start.at)


def _together(starts: Sequence[Start], *, whole: bool) -> Start:
    """``whole``: all ranks have started. One that fails ends the others."""
    first = starts[0]
    signals = [start.signalled_at for start in starts if start.signalled_at is not None]
    ends = [start.ended_at for start in starts if start.ended_at is not None]
    failed = [start.code for start in starts if start.code]
    has_ended = bool(failed) or (whole and len(ends) == len(starts))
    return replace(
        first,
        at=min(start.at for start in starts),
        node=",".join(start.node for start in starts),
        still_alive=[pid for start in starts for pid in start.still_alive],
        last_at=max(start.last_at for start in starts),
        signalled_at=min(signals, default=None),
        whole=whole,
        ended_at=max(ends) if has_ended else None,
        code=(failed or [0])[0] if has_ended else None,
    )


def read(ledger: Path) -> list[Start]:
    """The starts of a rank, in their order."""
    starts: dict[str, Start] = {}
    if not ledger.exists():
        return []
    for line in ledger.read_text(encoding="utf-8").splitlines():
        at, pid, word, *rest = line.split()
        if word == "start":
            _, job, node, restart, *others = rest
            starts[pid] = Start(int(pid), float(at), job, node, restart, [int(other) for other in others])
        if pid not in starts:
            continue  # it was signalled before it had begun
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
