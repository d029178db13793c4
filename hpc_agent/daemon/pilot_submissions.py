"""Submissions to pilots: of the waiting tasks of queues in the mode ``pilot``, those that pilots get in this pass.

A task is asked for what it needs when its turn comes. One that gets no slot now, as its environment is not built or it
has to be a job of its own and there are too many jobs, lets those behind it by.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence

import msgspec

from hpc_agent.daemon.observe import ClusterSnapshot
from hpc_agent.daemon.pilot_queues import PilotQueues
from hpc_agent.daemon.submitter import PreparedJob
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.capacity import QueueCandidates
from hpc_agent.domain.ids import QueueId
from hpc_agent.domain.queue import Queue
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.logs import EventLog

log = EventLog("daemon")

_LET_BY = 50
"""Tasks of a queue that a pass tries at most beyond those that there are slots for."""


class PilotRound(msgspec.Struct):
    """Part of a pass that concerns pilots."""

    lanes: Sequence[QueueCandidates]
    """The queues in the mode ``pilot`` that have due tasks."""
    own_jobs: int
    """How many tasks that fit into no pilot may still become jobs of their own."""
    limited: Collection[QueueId]
    """Queues of which none may: they wait for a limit of the scheduler."""
    handed_over: int = 0
    """Tasks that went to pilots."""
    tried: set[Attempt] = msgspec.field(default_factory=set)


class PilotSubmissions:
    def __init__(self, pilots: PilotQueues, most_jobs: int) -> None:
        """``most_jobs``: ``hpc.max_jobs``."""
        self._pilots = pilots
        self._most_jobs = most_jobs
        self._unfit: set[Attempt] = set()
        """Waiting tasks that are known to fit into no pilot."""

    def serves(self, queue: Queue) -> bool:
        """Whether its tasks run in pilots."""
        return self._pilots.serves(queue)

    def runs(self, cluster: ClusterSnapshot, attempt: Attempt) -> bool:
        """Whether the attempt's job is one in a pilot."""
        return self._pilots.is_pilot_task(cluster.snapshots[attempt].jobs)

    def begin(
        self,
        cluster: ClusterSnapshot,
        lanes: Sequence[QueueCandidates],
        live: Collection[Attempt],
        limited: Collection[QueueId],
    ) -> PilotRound:
        """Ask for the pilots that the queues need. ``lanes``: of all queues, none where no task is due; ``live``: the
        attempts that have jobs; ``limited``: queues that wait for a limit of the scheduler."""
        queues = {queue.id for queue in cluster.queues if self.serves(queue)}
        of_pilots = [lane for lane in lanes if lane.queue in queues]
        self._unfit &= {attempt for lane in of_pilots for attempt in lane.due}
        self._keep(cluster, of_pilots)
        of_tasks = sum(not self.runs(cluster, attempt) for attempt in live)
        jobs = of_tasks + self._pilots.count(cluster.live) + self._pilots.submitted
        return PilotRound(of_pilots, max(self._most_jobs - jobs, 0), limited)

    def hand_over(
        self, round: PilotRound, cluster: ClusterSnapshot, run: Callable[[Sequence[Attempt]], bool]
    ) -> dict[Attempt, str]:
        """Have the tasks of each queue submitted, as many as there are slots for. Returns the next one of each that
        waits for a slot → its status message.

        Args:
            run: submits tasks one after the other; False if no other one can be.
        """
        names = {queue.id: queue.name for queue in cluster.queues}
        for lane in round.lanes:
            if not self._hand_over(round, lane, self._pilots.room(names[lane.queue]), run):
                return {}
        return {
            attempt: self._pilots.message(names[lane.queue])
            for lane in round.lanes
            if (attempt := self._next_waiting(round, lane)) is not None
        }

    def takes(self, round: PilotRound, job: PreparedJob) -> bool:
        """Whether it goes to a pilot; else it has to be a job of its own, and takes no slot."""
        if job.pilot_queue and self._pilots.takes(job.pilot_queue, job.context.resources):
            round.handed_over += 1
            return True
        self._unfit.add(job.directory.attempt)
        return False

    def _hand_over(
        self, round: PilotRound, lane: QueueCandidates, room: int, run: Callable[[Sequence[Attempt]], bool]
    ) -> bool:
        quota = math.inf if lane.limit is None else lane.limit - lane.live
        candidates = deque(lane.due)
        left = int(min(room, quota)) + _LET_BY
        while min(room, quota, left) > 0 and candidates:
            may_be_jobs = round.own_jobs > 0 and lane.queue not in round.limited
            chosen = self._take(candidates, int(min(room, quota, left)), may_be_jobs=may_be_jobs)
            before, own_before = round.handed_over, round.own_jobs
            round.tried.update(chosen)
            if not run(chosen):
                return False
            handed_over = round.handed_over - before
            room -= handed_over
            # Those that became jobs of their own take no slot, but are jobs of the queue too.
            quota -= handed_over + own_before - round.own_jobs
            left -= len(chosen)
        return True

    def _take(self, candidates: deque[Attempt], count: int, *, may_be_jobs: bool) -> list[Attempt]:
        """The next ones, without those that have to be jobs of their own, where there may be none."""
        chosen: list[Attempt] = []
        while candidates and len(chosen) < count:
            attempt = candidates.popleft()
            if may_be_jobs or attempt not in self._unfit:
                chosen.append(attempt)
        return chosen

    def _next_waiting(self, round: PilotRound, lane: QueueCandidates) -> Attempt | None:
        passed = round.tried | self._unfit
        return next((attempt for attempt in lane.due if attempt not in passed), None)

    def _keep(self, cluster: ClusterSnapshot, lanes: Sequence[QueueCandidates]) -> None:
        """An error of theirs keeps no other queue from its jobs."""
        due = {lane.queue: sum(attempt not in self._unfit for attempt in lane.due) for lane in lanes}
        try:
            self._pilots.keep(cluster.queues, due, cluster.live)
        except (SchedulerUnavailableError, OSError) as error:
            log.warning("pilots.not_kept", error=error)
