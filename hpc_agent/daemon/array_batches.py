"""Batches of prepared jobs that go to the scheduler together, and how large they may be."""

from __future__ import annotations

from collections.abc import Iterator

from hpc_agent.daemon.submitter import PreparedJob
from hpc_agent.domain.ids import QueueId


class ArraySizes:
    """Most jobs of one submission: half as many after one that the scheduler did not take, twice as many after one that
    it took. A refusal of a single job is about its task; one of many may be about their number."""

    def __init__(self) -> None:
        self._most: dict[QueueId, int] = {}

    def most(self, queue: QueueId, allowed: int) -> int:
        return min(allowed, self._most.get(queue, allowed))

    def taken(self, queue: QueueId, size: int) -> None:
        if queue in self._most:
            self._most[queue] = max(self._most[queue], 2 * size)

    def not_taken(self, queue: QueueId, size: int) -> None:
        self._most[queue] = max(size // 2, 1)


class Batches:
    """Of one pass. ``allowed``: as ``Submitter.array_size``."""

    def __init__(self, sizes: ArraySizes, allowed: int) -> None:
        self._sizes = sizes
        self._allowed = allowed
        self._open: dict[tuple[QueueId, object], list[PreparedJob]] = {}

    @property
    def are_possible(self) -> bool:
        return self._allowed > 1

    def add(self, job: PreparedJob, key: object) -> bool:
        """Whether it joins others."""
        batch = self._open.setdefault((job.queue.id, key), [])
        batch.append(job)
        return len(batch) > 1

    def take_full(self) -> Iterator[list[PreparedJob]]:
        """Those that take no more."""
        for name, batch in list(self._open.items()):
            if len(batch) >= self._sizes.most(name[0], self._allowed):
                del self._open[name]
                yield batch

    def take_all(self) -> Iterator[list[PreparedJob]]:
        while self._open:
            yield self._open.pop(next(iter(self._open)))
