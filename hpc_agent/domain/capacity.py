"""Capacity: how many jobs and GPUs may start now, and which waiting tasks get them. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import chain, zip_longest

import msgspec
from msgspec.structs import replace

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import QueueId
from hpc_agent.errors import InputError


class GpuRange(msgspec.Struct, frozen=True):
    """GPUs of one job: at least, and at most where more are free."""

    least: int
    most: int


class Capacity(msgspec.Struct, frozen=True):
    """Capacity of a scheduler for jobs that start at once; None: unlimited, it has a queue of its own."""

    jobs: int | None = None
    gpus: int | None = None
    all_gpus: int | None = None
    """With those that are taken."""
    at_once: int = 1
    """Submissions that may be under way at the same time."""

    @property
    def full(self) -> bool:
        return self.jobs is not None and self.jobs <= 0

    def grant(self, wanted: GpuRange) -> int | None:
        """The GPUs that a job gets; None if it has to wait. One that asks for more than there are need not wait: the
        scheduler tells it so."""
        if self.full:
            return None
        if self.all_gpus is not None and wanted.least > self.all_gpus:
            return wanted.least
        if self.gpus is None:
            return wanted.least
        return min(self.gpus, wanted.most) if self.gpus >= wanted.least else None

    def without(self, gpus: int) -> Capacity:
        """What a job with so many GPUs leaves."""
        return replace(
            self,
            jobs=None if self.jobs is None else self.jobs - 1,
            gpus=None if self.gpus is None else max(self.gpus - gpus, 0),
        )

    def with_one_more(self) -> Capacity:
        """After a job that turned out to need no submission of its own."""
        return self if self.jobs is None else replace(self, jobs=self.jobs + 1)


def parse_allocation(word: str) -> tuple[str, GpuRange]:
    """``dual=2`` and ``quad=1-4`` of ``--dynamic-gpus --queue``: the queue, and the GPUs of each of its jobs.

    Raises:
        InputError: it is neither.
    """
    match = re.fullmatch(r"(?P<queue>.+)=(?P<least>\d+)(?:-(?P<most>\d+))?", word)
    if not match:
        raise InputError(
            f'with --dynamic-gpus each queue says how many GPUs its jobs get, as in "{word}=1" or "{word}=1-4"'
        )
    least, most = int(match["least"]), int(match["most"] or match["least"])
    if least < 1 or most < least:
        raise InputError(f'"{word}": expected at least one GPU, and a range from fewer to more, such as 1-4')
    return match["queue"], GpuRange(least, most)


class QueueCandidates(msgspec.Struct, frozen=True):
    """A queue's tasks that are due, in running order, and its room."""

    queue: QueueId
    due: tuple[Attempt, ...]
    live: int = 0
    """Jobs of this queue that the scheduler has already."""
    limit: int | None = None


def choose(lanes: Sequence[QueueCandidates], live: int, limit: int, *, fair: bool) -> list[Attempt]:
    """The attempts to submit, first come first.

    ``live`` and ``limit`` count jobs of all queues. Without ``fair`` the first queue goes first; with it each queue
    gives one in turn.
    """
    rows = [lane.due[: max(lane.limit - lane.live, 0)] if lane.limit is not None else lane.due for lane in lanes]
    ordered = (
        [attempt for attempt in chain.from_iterable(zip_longest(*rows)) if attempt is not None]
        if fair
        else list(chain.from_iterable(rows))
    )
    return ordered[: max(limit - live, 0)]


def held_back(lanes: Sequence[QueueCandidates], chosen: Collection[Attempt], limit: int) -> dict[Attempt, str]:
    """The first attempt of each queue that is due and not ``chosen`` → its status message, with the limit that
    holds it back. ``limit``: of all queues."""
    held = {}
    picked = frozenset(chosen)
    for lane in lanes:
        waiting = [attempt for attempt in lane.due if attempt not in picked]
        if waiting:
            taken = lane.live + len(lane.due) - len(waiting)
            of_queue = lane.limit is not None and taken >= lane.limit
            number, whose, key = (
                (lane.limit, "this queue", "max_jobs") if of_queue else (limit, "all queues", "hpc.max_jobs")
            )
            jobs = "1 job" if number == 1 else f"{number} jobs"
            held[waiting[0]] = f"Waiting: the scheduler has {jobs} of {whose}, the most at a time ({key})"
    return held


def shared_out(due: Sequence[Attempt], owner_of: Callable[[Attempt], str], jobs: Mapping[str, int]) -> list[Attempt]:
    """The attempts in an order in which the owner with the fewest jobs always goes next; each owner's own keep theirs,
    and of owners with as many jobs the one goes first whose attempt is first in the queue.

    ``jobs``: how many each owner has in the scheduler.
    """
    lines: dict[str, deque[tuple[int, Attempt]]] = {}
    for position, attempt in enumerate(due):
        lines.setdefault(owner_of(attempt), deque()).append((position, attempt))
    heads = [(jobs.get(owner, 0), line[0][0], owner) for owner, line in lines.items()]
    heapify(heads)
    ordered = []
    while heads:
        count, _, owner = heads[0]
        ordered.append(lines[owner].popleft()[1])
        if lines[owner]:
            heapreplace(heads, (count + 1, lines[owner][0][0], owner))
        else:
            heappop(heads)
    return ordered


def rotated(lanes: Sequence[QueueCandidates], last: QueueId | None) -> list[QueueCandidates]:
    """The lanes beginning behind ``last``, so that a round robin goes on where it stopped."""
    names = [lane.queue for lane in lanes]
    if last not in names:
        return list(lanes)
    start = (names.index(last) + 1) % len(names)
    return [*lanes[start:], *lanes[:start]]
