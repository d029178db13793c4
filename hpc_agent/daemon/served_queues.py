"""Queues that this daemon serves now: leases, schedules, tags of queues, and what the server sets for this worker.

Two daemons that finish the same task would send its console twice, so that one at a time acts on a queue. Nothing else
depends on the lease: a daemon that was suspended for a minute may come back as the second one, and every action of it
is still right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.schedule import Schedule, served
from hpc_agent.errors import HpcAgentError
from hpc_agent.lease import HeartbeatTiming, Lease
from hpc_agent.logs import EventLog

log = EventLog("turns")

_DEAD_AFTER_S = HeartbeatTiming().expires_after + 5


class QueueLeases:
    """``folder`` is on the shared file system, where all daemons that could serve a queue look."""

    def __init__(self, folder: Path, queues: Sequence[QueueId], clock: Clock) -> None:
        self._folder = folder
        self._queues = list(queues)
        self._clock = clock
        self._leases: dict[QueueId, Lease] = {}
        self._held: set[QueueId] = set()

    def also(self, queue: QueueId) -> None:
        """Hold a lease on this queue too from now on."""
        if queue not in self._queues:
            self._queues.append(queue)

    def ours(self) -> frozenset[QueueId]:
        """Queues whose leases this daemon holds in this pass."""
        for queue in self._queues:
            had = queue in self._held
            has = self._keep(queue)
            if has and not had:
                self._held.add(queue)
                log.info("queue.lease_acquired", queue=queue)
            elif had and not has:
                self._held.discard(queue)
                log.warning("queue.lease_lost", queue=queue)
        return frozenset(self._held)

    def _keep(self, queue: QueueId) -> bool:
        lease = self._leases.get(queue)
        if lease is not None and queue in self._held:
            if lease.is_held():
                return True
            # Its heartbeat must end: where it was only unreadable for a moment, this process would wait for itself
            # forever.
            self._leases.pop(queue).release()
        lease = self._leases.setdefault(queue, Lease(self._folder / queue, self._clock))
        return lease.acquire()

    def wait_for_one(self) -> None:
        """Until a queue is ours, or it is certain that another daemon lives: that of a dead one shows by watching."""
        deadline = self._clock.monotonic() + _DEAD_AFTER_S
        while not self.ours() and self._clock.monotonic() < deadline:
            self._clock.sleep(1.0)

    def give_back(self) -> None:
        for queue in self._held:
            self._leases[queue].release()
        self._held.clear()
        self._leases.clear()


FORCE = "force"
"""The runtime property that a server sets to ``on`` or ``off``."""


class Activity:
    def __init__(self, client: Client, worker: WorkerId, schedule: Schedule, clock: Clock) -> None:
        self._client = client
        self._worker = worker
        self._schedule = schedule
        self._clock = clock
        self._reported: dict[QueueId, bool] = {}

    def of(self, queues: Sequence[Queue]) -> set[QueueId]:
        """The queues whose tasks may be submitted now. Jobs that are there already go on anyway."""
        force = self._force()
        local = self._clock.now().astimezone()
        active = set()
        for queue in queues:
            decision = served(queue.tags, force, self._schedule, local)
            if decision.active:
                active.add(queue.id)
            if self._reported.get(queue.id, True) is not decision.active:
                log.info("queue.active" if decision.active else "queue.inactive", queue=queue.name, why=decision.why)
            self._reported[queue.id] = decision.active
        return active

    def _force(self) -> str:
        try:
            return str(self._client.workers.runtime_properties(self._worker).get(FORCE) or "")
        except HpcAgentError as error:
            # No answer forces nothing.
            log.debug("daemon.properties_unavailable", error=error)
            return ""
