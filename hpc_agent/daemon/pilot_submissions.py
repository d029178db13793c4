"""Submissions to pilots: of the waiting tasks of queues in the mode ``pilot``, those that pilots get in this pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from hpc_agent.daemon.observe import ClusterSnapshot
from hpc_agent.daemon.pilot_queues import PilotQueues
from hpc_agent.daemon.submitter import PreparedJob
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.capacity import QueueCandidates
from hpc_agent.domain.ids import QueueId
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.logs import EventLog

log = EventLog("daemon")


class PilotShare(msgspec.Struct, frozen=True):
    """Part of a pass that concerns pilots."""

    queues: Collection[QueueId]
    """Those in the mode ``pilot``."""
    chosen: Sequence[Attempt]
    """The tasks to hand over, in their order."""
    held_back: Mapping[Attempt, str] = msgspec.field(default_factory=dict)
    """The next task of each queue that waits for a slot → its status message."""


class PilotSubmissions:
    def __init__(self, pilots: PilotQueues) -> None:
        self._pilots = pilots

    def share(self, cluster: ClusterSnapshot, lanes: Sequence[QueueCandidates]) -> PilotShare:
        """Ask for the pilots that the queues need, and choose what those that there are get. ``lanes``: of all queues,
        none where no task is due."""
        queues = {queue.id for queue in cluster.queues if self._pilots.serves(queue)}
        of_pilots = [lane for lane in lanes if lane.queue in queues]
        self._keep(cluster, of_pilots)
        names = {queue.id: queue.name for queue in cluster.queues}
        chosen = self._pilots.choose(of_pilots, names)
        picked = frozenset(chosen)
        held_back = {}
        for lane in of_pilots:
            waiting = next((attempt for attempt in lane.due if attempt not in picked), None)
            if waiting is not None:
                held_back[waiting] = self._pilots.message(names[lane.queue])
        return PilotShare(queues, chosen, held_back)

    def jobs(self, cluster: ClusterSnapshot, live: Collection[Attempt]) -> int:
        """Jobs of the batch system among those of these attempts, and the pilots."""
        of_tasks = sum(not self._pilots.is_pilot_task(cluster.snapshots[attempt].jobs) for attempt in live)
        return of_tasks + self._pilots.count(cluster.live)

    def takes(self, job: PreparedJob) -> bool:
        """Whether it goes to a pilot, and not to the batch system."""
        return bool(job.pilot_queue) and self._pilots.takes(job.pilot_queue, job.context.resources)

    def _keep(self, cluster: ClusterSnapshot, lanes: Sequence[QueueCandidates]) -> None:
        """An error of theirs keeps no other queue from its jobs."""
        try:
            self._pilots.keep(cluster.queues, {lane.queue: len(lane.due) for lane in lanes}, cluster.live)
        except (SchedulerUnavailableError, OSError) as error:
            log.warning("pilots.not_kept", error=error)
