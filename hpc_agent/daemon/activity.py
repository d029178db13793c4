"""Which queues are served now: schedules, tags of queues, and what the server sets for this worker."""

from __future__ import annotations

from collections.abc import Sequence

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId, WorkerId
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.schedule import Schedule, served
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import EventLog

log = EventLog("active")

FORCE = "force"
"""The runtime property that a server sets to ``on`` or ``off``."""


class Activity:
    def __init__(self, client: Client, worker: WorkerId, schedule: Schedule, clock: Clock) -> None:
        self._client = client
        self._worker = worker
        self._schedule = schedule
        self._clock = clock
        self._said: dict[QueueId, bool] = {}

    def of(self, queues: Sequence[Queue]) -> set[QueueId]:
        """The queues whose tasks may be submitted now. Jobs that are there already go on all the same."""
        force = self._force()
        local = self._clock.now().astimezone()
        active = set()
        for queue in queues:
            says = served(queue.tags, force, self._schedule, local)
            if says.active:
                active.add(queue.id)
            if self._said.get(queue.id, True) is not says.active:
                log.info("queue served" if says.active else "queue not served now", queue=queue.name, why=says.why)
            self._said[queue.id] = says.active
        return active

    def _force(self) -> str:
        try:
            return str(self._client.workers.runtime_properties(self._worker).get(FORCE) or "")
        except HpcAgentError as error:
            # No answer forces nothing.
            log.debug("no runtime properties", error=error)
            return ""
