"""Was a task lost, run twice, given a wrong verdict? Ledger, server and the faults that were made, compared; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from faults.chaos_ledger import LINES_A_START, Job, Start

AT_ITS_END_S = 1.5
"""A process that wrote "end" this shortly before its node or job was hit may have ended unseen."""
_GHOST_S = 4.0
"""A process on a node that Slurm has given up notices within two looks of its agent that its task is no longer its own.
What it prints meanwhile belongs to no task."""
_RANK_GHOST_S = 15.0
"""The same for ranks, whose first agent is on another node: Slurm lets it end its step."""
_UNWRITTEN_S = 1.5
"""What was printed so shortly before a node died may not have been on disk: the writer of a console puts what comes
within 0.3 s into its file at once, later on a busy machine."""
_FINALS = ("completed", "failed", "stopped")


class Wrong(Enum):
    LOST = "lost"
    TWICE = "run twice"
    VERDICT = "wrong verdict"


@dataclass(frozen=True)
class Hit:
    """One fault. ``job`` or ``node`` where it ends processes, in the span that ``since`` and ``until`` tell; ``tasks``
    in flight when it began."""

    kind: str
    since: float
    until: float
    tasks: frozenset[str] = frozenset()
    job: str = ""
    element: str = ""
    """The job's other id, where it is an element of a job array."""
    node: str = ""
    partition: str = ""
    """Of the node, only jobs of this partition."""
    cancels: bool = False
    """A request that the job ends for good."""
    kills_rank: bool = False
    """It ends one rank, and with it the task."""
    sure: bool = True
    """Whether that wish was met: scancel may come too late, and does not tell."""
    ghosts: bool = False
    """The processes themselves live on for a while: Slurm only takes them for dead."""
    kills_writers: bool = False
    """It ends all processes of a job at once, those that write its console too."""
    away: str = ""
    """``slurmctld``, or the node whose slurmd did not run in that span: signals wait as long."""

    def ends(self, start: Start, partition: str) -> bool:
        """Whether it may have ended this process."""
        if self.keeps_from_launching(start):
            return True
        if self.job:
            where = self.job == start.job
        else:
            where = bool(self.node) and self.node in start.nodes and self.partition in ("", partition)
        return where and start.at <= self.until + _STARTING_S and start.last_at >= self.since - _SILENT_S

    def keeps_from_launching(self, start: Start) -> bool:
        """Whether a rank of this start may not have begun because its node's slurmd was away; the other ranks are for
        nothing then."""
        is_missing = not start.whole and bool(self.away) and self.away != "slurmctld" and self.away not in start.nodes
        return is_missing and self.since - _STARTING_S <= start.at <= self.until + _STARTING_S

    @property
    def restarts(self) -> bool:
        """Whether the task may start again after it."""
        return not (self.cancels or self.kills_rank)

    def saw_end(self, start: Start) -> bool:
        """Whether it came just when the process ended, or before all of the ranks had."""
        at = start.ended_at
        if at is not None and self.node and len(start.nodes) > 1:
            # Ranks of other nodes may end before Slurm knows of the node, and the job ends for the node.
            return self.since - AT_ITS_END_S <= at
        return at is not None and self.since - AT_ITS_END_S <= at <= self.until + AT_ITS_END_S


_SIGNAL_S = 10.0
"""From a slurmctld that has noted a scancel over slurmd and the agent to the process, on a busy machine, while none of
them is away. One that got the signal never ends by itself afterwards."""
_ENDED_BY_SLURM = frozenset({"NODE_FAIL", "PREEMPTED", "REQUEUED"})
"""What accounting calls a start of a job that Slurm ended and may follow by another."""
_STARTING_S = 2.0
"""A job that is hit may be about to start its process."""
_SILENT_S = 3.0
"""Between two lines on a busy machine."""


@dataclass(frozen=True)
class Seen:
    """What the server shows of a task at the end."""

    status: str
    reason: str
    lines: Sequence[int]
    in_queue: bool = False
    other_ranks: Sequence[Sequence[int]] = field(default_factory=list)
    """Lines of rank 1, 2 … as ``lines`` are of rank 0."""


@dataclass
class Story:
    """All that is known of a task when everything is over."""

    task: str
    job: Job
    starts: Sequence[Start]
    seen: Seen
    hits: Sequence[Hit] = field(default_factory=list)
    ranks: Sequence[Sequence[Start]] = ()
    """Starts of each rank, where there are several."""

    def wrong(self) -> list[tuple[Wrong, str]]:
        found = [(Wrong.TWICE, text) for text in self._twice()]
        found += [(Wrong.LOST, text) for text in self._lost_lines()]
        if self.seen.status not in _FINALS:
            if not self.seen.in_queue:
                found.append((Wrong.LOST, f"at the end it is {self.seen.status} and in no queue"))
        elif text := self._verdict():
            found.append((Wrong.VERDICT, text))
        return found

    @property
    def cut_at_its_end(self) -> int:
        """Starts that went on after an end which only the ledger can have seen: its node went down with it."""
        return sum(before.ended_at is not None and self._cut(before) for before in self.starts[: len(self.starts) - 1])

    def touched_by(self, hit: Hit) -> bool:
        return self.task in hit.tasks or any(hit.ends(start, self.job.partition) for start in self.starts)

    def _enders(self, start: Start) -> list[Hit]:
        return [hit for hit in self.hits if hit.ends(start, self.job.partition)]

    def _cut(self, start: Start) -> bool:
        return any(hit.saw_end(start) for hit in self._enders(start) if hit.restarts)

    def _twice(self) -> list[str]:
        found = []
        for number, (before, after) in enumerate(zip(self.starts, self.starts[1:], strict=False), 1):
            if after.still_alive:
                found.append(f"start {number + 1} began while process {after.still_alive[0]} still lived")
            if before.ended_at is not None and not self._cut(before):
                found.append(f"started again {after.at - before.ended_at:.1f} s after it ended with {before.code}")
            elif not [hit for hit in self._enders(before) if hit.restarts]:
                found.append(f"start {number + 1}, and no fault had ended start {number}")
        return found

    def _lost_lines(self) -> list[str]:
        if not self.seen.other_ranks:
            return self._lost_lines_of(self.starts, self.seen.lines)
        shown = [self.seen.lines, *self.seen.other_ranks]
        found = [self._lost_lines_of(starts, lines) for starts, lines in zip(self.ranks, shown, strict=True)]
        return [f"rank {rank}: {text}" for rank, texts in enumerate(found) for text in texts]

    def _lost_lines_of(self, starts: Sequence[Start], seen: Sequence[int]) -> list[str]:
        lines = list(seen)
        found = []
        if missing := sorted({line for start in starts for line in self._due(start)} - set(lines)):
            found.append(f"{len(missing)} lines are missing on the server, the first: {missing[0]}")
        if doubled := sorted({line for line in lines if lines.count(line) > 1}):
            found.append(f"{len(doubled)} lines are doubled on the server, the first: {doubled[0]}")
        if lines != sorted(lines):
            at = next(i for i in range(1, len(lines)) if lines[i] < lines[i - 1])
            found.append(f"line {lines[at]} is after line {lines[at - 1]}")
        if strange := [line for line in lines if line // LINES_A_START >= max(len(starts), 1)]:
            found.append(f"line {strange[0]} is on the server, and no start has printed it")
        return found

    def _due(self, start: Start) -> list[int]:
        """The lines of a start that must be on the server."""
        whole = next((each for each in self.starts if (each.job, each.restart) == (start.job, start.restart)), start)
        until = start.last_at
        enders = self._enders(whole)
        if any(hit.ghosts for hit in enders):
            until -= _RANK_GHOST_S if self.seen.other_ranks else _GHOST_S
        elif any(hit.kills_writers for hit in enders):
            until -= _UNWRITTEN_S
        return [line for line, at in zip(start.lines, start.printed_at, strict=True) if at <= until]

    def _verdict(self) -> str:
        """Why the final status is wrong, or nothing."""
        expected = self._expected()
        status, reason = self.seen.status, self.seen.reason
        if any(status == word and re.search(pattern, reason) for word, pattern in expected):
            return ""
        words = " or ".join(f"{word} ({pattern})" if pattern else word for word, pattern in expected)
        return f"{status} ({reason}), expected {words or 'another start'}"

    def _expected(self) -> list[tuple[str, str]]:
        """Final statuses that are right, each with a pattern of its reason."""
        last = self.starts[-1] if self.starts else None
        cancelled = [hit for hit in self.hits if hit.cancels and self.task in hit.tasks]
        expected = [("stopped", r"was cancelled")] if cancelled else []
        killed = last is not None and any(hit.kills_rank for hit in self._enders(last))
        if killed:
            expected.append(("failed", r"SIGKILL: rank \d+ on n\d"))
        if last is not None and last.ended_at is not None:
            rank = r": rank \d+ on n\d" if self.seen.other_ranks else "$"
            by_code = ("completed", "") if last.code == 0 else ("failed", f"exit code {last.code}{rank}")
            if not any(self._must_have_stopped(hit, last) for hit in cancelled):
                expected.append(by_code)
            # Hit while it ended: its end was not seen, or not reported any more.
            return expected + (self._given_up() if self._cut(last) else [])
        return expected + self._given_up() if killed else expected or self._given_up()

    def _given_up(self) -> list[tuple[str, str]]:
        """Where no other start is due: only in the queue that allows none."""
        last = self.starts[-1] if self.starts else None
        enders = [h for h in self.hits if (self._is_hit(h) if last is None else h.ends(last, self.job.partition))]
        if self.job.queue != "once" or all(hit.kills_rank for hit in enders):
            return []
        # Slurm itself may call a job that it preempts on a node that dies either.
        not_launched = "could not start the ranks|agents of the task's nodes ended before all were ready"
        return [
            *([("failed", not_launched)] if last is None or not last.whole else []),
            ("failed", r"node \S+ failed|before the agent started|ended before it started|Slurm ended the step"),
            ("stopped", r"was preempted"),
        ]

    def _is_hit(self, hit: Hit) -> bool:
        """Whether it may have ended a job of the task in which nothing had started."""
        if any(id and re.search(rf"\bjob {re.escape(id)}\b", self.seen.reason) for id in (hit.job, hit.element)):
            return True
        return self.task in hit.tasks and bool(hit.node or hit.job or hit.away not in ("", "slurmctld"))

    def _must_have_stopped(self, cancel: Hit, start: Start) -> bool:
        """Whether a process that ended by itself should not have come so far: its job had been cancelled long enough
        before that, or it was started after a job of its task had been cancelled."""
        if not cancel.sure:
            return False
        if cancel.job != start.job:
            return cancel.until < start.at
        return start.ended_at is not None and self._signalled_by(cancel, start) < start.ended_at

    def _signalled_by(self, cancel: Hit, start: Start) -> float:
        """When the signal of a scancel reaches the process at the latest."""
        at = cancel.until + _SIGNAL_S
        for hit in sorted(self.hits, key=lambda hit: hit.since):
            if hit.away in ("slurmctld", start.node) and hit.since <= at and hit.until >= cancel.since:
                at = max(at, hit.until + _SIGNAL_S)
        return at


def confirmed(hits: Sequence[Hit], table: str) -> list[Hit]:
    """The same, with what accounting says of the jobs that were cancelled; ``table`` as ``ended_by_slurm`` takes it."""
    rows = [line.split("|") for line in table.splitlines()]
    cancelled = {job for job, state, *_ in rows if state.startswith("CANCELLED")}
    return [replace(hit, sure=hit.job in cancelled) if hit.cancels and rows else hit for hit in hits]


def ended_by_slurm(table: str) -> list[Hit]:
    """The starts that Slurm itself ended, as ``sacct -D -X -P -n -o JobIDRaw,State,End,JobID`` tells them with
    ``SLURM_TIME_FORMAT=%s``: a machine that is slow for a moment makes faults that are not planned."""
    hits = []
    for line in table.splitlines():
        job, state, end, *more = line.split("|")
        element = more[0] if more and "_" in more[0] else ""
        word = state.partition(" ")[0]
        if word in _ENDED_BY_SLURM and end.isdigit():
            # Whole seconds. A node that fails to answer may still run its processes.
            ghosts = word == "NODE_FAIL"
            hits.append(Hit(f"Slurm: {word}", float(end), float(end) + 1, job=job, element=element, ghosts=ghosts))
    return hits


_STEP_BEGAN = re.compile(r"launch task StepId=(\S+) request")
_STEP_GOT_SIGTERM = re.compile(
    r"\[(\S+)\] (?:get_exit_code task \d+ died by signal: 15|error: \*\*\* STEP .* CANCELLED AT)"
)


def ended_by_late_requests(log: str, hits: Sequence[Hit]) -> list[Hit]:
    """Steps that got SIGTERM on a node, by the ``log`` of its slurmd, where a step of the same number had run in an
    earlier start of their job: slurmctld may have meant that one. But for those with a rank among ``hits``, whose end
    is that of all."""
    ranks = [hit for hit in hits if hit.kills_rank]
    found = []
    begun: Counter[str] = Counter()
    for line in log.splitlines():
        if match := _STEP_BEGAN.search(line):
            begun[match[1]] += 1
        elif (match := _STEP_GOT_SIGTERM.search(line)) and begun[match[1]] > 1:
            at = datetime.fromisoformat(line[1 : line.index("]")]).timestamp()
            job = match[1].partition(".")[0]
            if not any(rank.job == job and rank.since <= at <= rank.until + _SIGNAL_S for rank in ranks):
                found.append(Hit("Slurm: late request", at, at + 1, job=job))
    return found
