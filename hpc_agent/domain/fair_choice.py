"""Which of the waiting tasks are submitted now: queue order or round robin, within the limits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import QueueId


@dataclass(frozen=True)
class QueueCandidates:
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


def rotated(lanes: Sequence[QueueCandidates], last: QueueId | None) -> list[QueueCandidates]:
    """The lanes beginning behind ``last``, so that a round robin goes on where it stopped."""
    names = [lane.queue for lane in lanes]
    if last not in names:
        return list(lanes)
    start = (names.index(last) + 1) % len(names)
    return [*lanes[start:], *lanes[:start]]
