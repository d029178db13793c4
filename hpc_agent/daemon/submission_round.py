"""State of the submissions of one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent import futures

import msgspec

from hpc_agent.daemon.array_batches import Batches
from hpc_agent.daemon.observe import ClusterSnapshot
from hpc_agent.daemon.pilot_submissions import PilotRound
from hpc_agent.daemon.submitter import CapacityAllocator
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.ids import QueueId
from hpc_agent.domain.job import SubmitResult

MOST_FAILURES = 2
"""So many calls without an answer in one pass, and it is not the task but the server or the scheduler."""

Answer = SubmitResult | None
"""None: the task's stage is not ready, or another daemon submits it."""


class SubmissionRound(msgspec.Struct):
    """Submissions of one pass."""

    cluster: ClusterSnapshot
    due: Mapping[Attempt, int]
    """The number of each one's submission."""
    space: CapacityAllocator
    at_once: int
    waits: bool
    """Whether to wait for stages."""
    batches: Batches
    width: int = 1
    """Jobs that may be on their way to the scheduler at the same time."""
    failures: int = 0
    is_unclear: bool = False
    """Whether the scheduler gave sbatch no answer."""
    live_of: Counter[str] = msgspec.field(default_factory=Counter)
    """Jobs of each queue, without tasks in pilots."""
    listed: int = 0
    """All jobs of the user, the daemon's and others."""
    limited: set[QueueId] = msgspec.field(default_factory=set)
    """Queues in which a limit was met. Answers to calls that were under way at the same time come in any order."""
    pilots: PilotRound | None = None
    """None in a round of tasks that become jobs."""
    under_way: dict[futures.Future[Answer], Attempt] = msgspec.field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.space.full or self.is_unanswered

    @property
    def is_unanswered(self) -> bool:
        return self.is_unclear or self.failures >= MOST_FAILURES

    @property
    def is_full(self) -> bool:
        """Whether the next one has to wait for one that is under way."""
        return len(self.under_way) >= min(self.width, self.at_once)
