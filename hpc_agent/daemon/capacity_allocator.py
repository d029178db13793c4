"""The room of one pass, taken bit by bit by those that are submitted, or prepared, in it."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_agent.domain.capacity import Capacity, GpuRange
from hpc_agent.domain.ids import QueueId


@dataclass(frozen=True)
class NoCapacity:
    """The task waits in its queue until others have ended."""

    message: str


class CapacityAllocator:
    """Nobody overtakes within a queue; a queue whose next task does not fit lets others by."""

    def __init__(self, room: Capacity) -> None:
        self._room = room
        self._blocked: set[QueueId] = set()

    @property
    def full(self) -> bool:
        return self._room.full

    def take(self, queue: QueueId, wanted: GpuRange) -> int | NoCapacity:
        """The GPUs that a job of this queue gets, or why it has to wait for a later pass."""
        if queue in self._blocked:
            return NoCapacity("Waiting behind another task of its queue")
        granted = self._room.grant(wanted)
        if granted is None:
            self._blocked.add(queue)
            return NoCapacity(f"Waiting for {wanted.least} GPUs, {self._room.gpus} are free")
        self._room = self._room.without(granted)
        return granted
