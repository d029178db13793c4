"""What a pilot has of its node, and what of it is free; the time that is left of its allocation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from hpc_agent.clock import Clock
from hpc_agent.domain.job import CurrentJob
from hpc_agent.domain.pilot_slots import Slot
from hpc_agent.schedulers.pilots.gate import Grant


class PilotAllocation:
    """Slots of one pilot. ``bound``: the CPUs that the site binds the job to; none where it binds it to no CPUs."""

    def __init__(self, whole: Slot, gpus: Sequence[str], bound: Sequence[int] = ()) -> None:
        self.whole = Slot(whole.cpus, whole.memory_mb, len(gpus))
        self.free = self.whole
        self._gpus = list(gpus)
        # With hyper-threads, or with fewer CPUs than asked for, it is not clear which are a task's.
        self._cpus = list(bound) if len(bound) == whole.cpus else []

    def grant(self, slot: Slot) -> Grant:
        """Give a part of it away, which must be free."""
        self.free = self.free.without(slot)
        gpus, self._gpus = self._gpus[: slot.gpus], self._gpus[slot.gpus :]
        cpus, self._cpus = self._cpus[: slot.cpus], self._cpus[slot.cpus :]
        return Grant(gpus, cpus)

    def take_back(self, slot: Slot, grant: Grant) -> None:
        free = self.free
        self.free = Slot(free.cpus + slot.cpus, free.memory_mb + slot.memory_mb, free.gpus + slot.gpus)
        self._gpus += grant.gpus
        self._cpus += grant.cpus


class TimeLimits(msgspec.Struct, frozen=True):
    """Times in a pilot's life, in seconds."""

    limit: float
    """That the pilot was submitted with."""
    reserve: float
    """Of its end, in which tasks are stopped and report."""
    usual_task: float
    """Time limit of the queue's tasks that ask for none."""


_ASK_AGAIN_S = 60.0
_STARTED_LATE_S = 60.0
"""Seconds from the start of the job to that of the pilot at most, where the scheduler does not answer."""


class RemainingTime:
    """Time until the allocation ends, as the scheduler says it; by the limit of the submission where it does not."""

    def __init__(self, ask: Callable[[], CurrentJob | None], limits: TimeLimits, clock: Clock) -> None:
        self._ask_scheduler = ask
        self._limits = limits
        self._clock = clock
        self._ends = clock.monotonic() + limits.limit - _STARTED_LATE_S
        self._asked_at = 0.0
        self._ask()

    def seconds(self) -> float:
        """Seconds in which a task may run."""
        return self._ends - self._limits.reserve - self._clock.monotonic()

    def is_over(self) -> bool:
        """Whether not even a usual task can start any more; asked again now and then, as limits may be extended."""
        if self.seconds() >= self._limits.usual_task:
            return False
        if self._clock.monotonic() - self._asked_at > _ASK_AGAIN_S:
            self._ask()
        return self.seconds() < self._limits.usual_task

    def _ask(self) -> None:
        now = self._asked_at = self._clock.monotonic()
        job = self._ask_scheduler()
        if job is not None and job.left is not None:
            self._ends = now + job.left
