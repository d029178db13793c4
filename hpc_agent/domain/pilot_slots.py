"""Pilots: jobs that run many tasks in one allocation. Which tasks a pilot starts, and how many pilots there should be.
Pure; see docs/internals/pilots.md."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from hpc_agent.domain.resources import Resources

PILOT_PREFIX = "clearml_pilot_"
"""What the names of pilots' jobs begin with."""
_PLACE = ("gpu_type", "partition", "account", "qos", "constraint", "reservation")
"""What a task may ask of the scheduler that a running pilot cannot change."""


class Slot(msgspec.Struct, frozen=True):
    """Part of a node: what one task takes, or what a pilot has. Memory in MiB, 0 where it is not counted."""

    cpus: int = 1
    memory_mb: int = 0
    gpus: int = 0

    @classmethod
    def of(cls, resources: Resources) -> Slot:
        """What ``resources`` ask for on one node."""
        return cls(resources.cpus or 1, resources.memory_mb or 0, resources.gpus)

    def holds(self, part: Slot) -> bool:
        """Whether ``part`` fits into this."""
        return part.cpus <= self.cpus and part.memory_mb <= self.memory_mb and part.gpus <= self.gpus

    def without(self, part: Slot) -> Slot:
        """What ``part`` leaves; a negative amount where it does not fit."""
        return Slot(self.cpus - part.cpus, self.memory_mb - part.memory_mb, self.gpus - part.gpus)

    def count(self, part: Slot) -> int:
        """How many such parts fit side by side."""
        pairs = (
            (self.cpus, part.cpus),
            (self.memory_mb, part.memory_mb),
            (self.gpus, part.gpus),
        )
        return min(have // need for have, need in pairs if need)


class TaskDemand(msgspec.Struct, frozen=True):
    """What a waiting task needs of a pilot. ``seconds``: its time limit."""

    slot: Slot
    seconds: float


class PilotState(msgspec.Struct, frozen=True):
    """A pilot at one moment. ``seconds_left``: until its allocation ends, less the time in which tasks are stopped."""

    whole: Slot
    free: Slot
    seconds_left: float


def to_start(waiting: Sequence[TaskDemand], pilot: PilotState) -> list[int]:
    """Indices into ``waiting``, which is in the order of the queue, of the tasks that the pilot starts now.

    A task that this pilot can never run is left to others. The first one that has to wait for room keeps it from those
    behind it: a small task must not overtake a large one forever.
    """
    free, chosen = pilot.free, []
    for index, demand in enumerate(waiting):
        if not may_run(demand, pilot):
            continue
        if not free.holds(demand.slot):
            break
        chosen.append(index)
        free = free.without(demand.slot)
    return chosen


def may_run(demand: TaskDemand, pilot: PilotState) -> bool:
    """Whether the pilot can run the task, at once or when others have ended."""
    return pilot.whole.holds(demand.slot) and demand.seconds <= pilot.seconds_left


def fits(task: Resources, pilot: Resources) -> bool:
    """Whether a task may run in a pilot that was asked for with these resources; any other gets a job of its own."""
    if task.nodes != 1 or not task.time_minutes or not pilot.time_minutes:
        return False
    if task.time_minutes > pilot.time_minutes:
        return False
    if any(getattr(task, name) not in ("", getattr(pilot, name)) for name in _PLACE):
        return False
    return counted(Slot.of(pilot), pilot).holds(counted(Slot.of(task), pilot))


def counted(slot: Slot, pilot: Resources) -> Slot:
    """``slot``, without memory where the pilot asks for none in particular: then nothing is known of what there is."""
    return slot if pilot.memory_mb else replace(slot, memory_mb=0)


class PilotQueueState(msgspec.Struct, frozen=True):
    """A queue in pilot mode at one moment. All but ``in_queue`` are tasks that were handed over to pilots."""

    in_queue: int
    """Tasks that wait in the queue and are due."""
    waiting: int
    """Tasks that no pilot has started."""
    running: int
    ended: int
    """Tasks that ended between two passes lately."""
    running_pilots: int
    """Running pilots with time for another task."""
    slots: int
    """Tasks that run side by side in one pilot."""


def wanted_pilots(queue: PilotQueueState, most: int) -> int:
    """How many pilots there should be: a slot for each task, at most ``most``. None while no task is ready: its
    environment may take longer to build than a pilot waits for it."""
    if not queue.waiting + queue.running:
        return 0
    tasks = queue.in_queue + queue.waiting + queue.running
    return min(math.ceil(tasks / max(queue.slots, 1)), most)


def to_hand_over(queue: PilotQueueState) -> int:
    """How many tasks of the queue may be handed over to its pilots now: one for each free slot, and some that are
    started when others end before the next pass. What is handed over keeps its order, whatever its user does to the
    queue, so that it is no more than that. Before there is a pilot, as many as it will start at once."""
    if not queue.running_pilots:
        return max(queue.slots - queue.waiting, 0)
    free = max(queue.running_pilots * queue.slots - queue.running, 0)
    ahead = queue.running_pilots + math.ceil(1.5 * queue.ended)
    return max(free + ahead - queue.waiting, 0)


def pilot_name(queue: str) -> str:
    """Name of the jobs that are pilots of a queue, given by name."""
    return f"{PILOT_PREFIX}{hashlib.sha256(queue.encode()).hexdigest()[:8]}"
