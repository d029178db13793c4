"""Options of the daemon's loop, as its flags set them."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from hpc_agent.daemon.task_owners import EntryFilter
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.schedule import Schedule


class LoopOptions(msgspec.Struct, frozen=True):
    """The flags of ``daemon``. ``queues`` in order of priority."""

    queues: tuple[QueueId, ...]
    worker: WorkerId
    fair: bool = False
    schedule: Schedule = msgspec.field(default_factory=Schedule)
    tags: tuple[str, ...] = ()
    """Of our own reports."""
    gpus: tuple[str, ...] | None = None
    """Whose use we report; None: of all GPUs of this machine."""
    entries: EntryFilter | None = None
    """The entries of the queues that are ours to serve; None: all."""
    each_pass: Callable[[], None] = lambda: None
    """Called before each pass."""
    idle_after: float = math.inf
    """Seconds without an attempt to see to, after which ``run`` returns."""
