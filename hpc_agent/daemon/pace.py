"""Pace of the daemon: how soon the next pass is due.

A pass asks the scheduler. While all jobs only wait or run there is nothing that the next one would do; between such
passes the daemon looks at the queues and at the news of jobs, which costs the scheduler nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.daemon.observe import ClusterObserver, ClusterSnapshot
from hpc_agent.domain import actions
from hpc_agent.domain.job import JobState
from hpc_agent.domain.snapshot import AttemptSnapshot
from hpc_agent.domain.status import TaskStatus


class Pace:
    """``is_free``: passes ask no shared scheduler, so that none is left out."""

    def __init__(self, settings: HpcSettings, observer: ClusterObserver, clock: Clock, *, is_free: bool) -> None:
        self._quiet_interval = 0.0 if is_free else settings.quiet_interval or 6 * settings.poll_interval
        self._observer = observer
        self._clock = clock
        self._passed_at = float("-inf")
        self._is_quiet = False

    def note(self, *, is_quiet: bool) -> None:
        """A pass is over; ``is_quiet``: nothing is due before something changes."""
        self._passed_at = self._clock.monotonic()
        self._is_quiet = is_quiet

    def is_due(self) -> bool:
        """Whether the next pass is due, asked at the poll interval.

        Raises:
            ServerUnreachableError: that is not known.
        """
        is_over = self._clock.monotonic() - self._passed_at >= self._quiet_interval
        return not self._is_quiet or is_over or self._observer.has_news()


def is_quiet(cluster: ClusterSnapshot, decided: Iterable[actions.Action]) -> bool:
    """Whether only time, a queue or a job's end can change what this pass decided. ``decided``: all actions but the
    submissions that a limit holds back."""
    return (
        not cluster.unreadable
        and not cluster.staging
        and all(isinstance(action, actions.SetStatusMessage) for action in decided)
        and all(_is_settled(cluster, snapshot) for snapshot in cluster.snapshots.values())
    )


def _is_settled(cluster: ClusterSnapshot, snapshot: AttemptSnapshot) -> bool:
    """Whether a task waits here, or its job waits or runs as it should."""
    if snapshot.submitted is None and snapshot.claimed is None:
        return snapshot.entry is not None and not snapshot.jobs
    submission = cluster.files[snapshot.attempt].submission
    if submission is None or not submission.known or len(snapshot.jobs) != 1 or snapshot.ended is not None:
        return False
    state = snapshot.jobs[0].state
    if state is JobState.PENDING:
        return snapshot.entry is not None or snapshot.status is TaskStatus.IN_PROGRESS
    is_running = snapshot.claimed is not None and snapshot.claimed.user_process_started
    return state is JobState.RUNNING and is_running and snapshot.runs and not snapshot.abort_requested
