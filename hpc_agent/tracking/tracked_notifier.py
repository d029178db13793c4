"""Notifier of the follower: tells of tracked jobs what ``daemon.notifier`` tells of the tasks of queues.

An event is written down before it is sent: a follower that dies in between loses it, and it is not sent twice. The
elements of an array are left out: the array's task has one start and one end.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.notify_settings import NotifySettings
from hpc_agent.daemon.notification_delivery import NotificationDelivery
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.job_phase import WAITING_STATES
from hpc_agent.domain.notification import Notification, TaskEvent
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import EventLog
from hpc_agent.runs.attempt_records import NotifiedRecord
from hpc_agent.tracking.tracked_jobs import TrackedJob
from hpc_agent.tracking.tracking_policy import TrackedJobSnapshot

log = EventLog("notify")

_NEWS_FOR = timedelta(hours=1)
"""A start that was longer ago is not reported: the follower was away."""
_ENDS = {
    TaskStatus.COMPLETED: TaskEvent.COMPLETED,
    TaskStatus.FAILED: TaskEvent.FAILED,
    TaskStatus.STOPPED: TaskEvent.STOPPED,
}


class TrackedNotifier:
    """Notifier of one follower; costs nothing where no event has a target. Its methods never raise."""

    def __init__(self, client: Client, settings: NotifySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._wanted = frozenset(event for event in TaskEvent if getattr(settings, event.setting).is_set)
        self._sent: set[tuple[TaskId, TaskEvent]] = set()
        self._delivery = NotificationDelivery(client, settings, clock)

    def update(self, tracked: TrackedJob, snapshot: TrackedJobSnapshot) -> None:
        """Tell of a start, or of waiting for too long, that this pass sees for the first time."""
        self._tell_start(tracked, _nodes(tracked, snapshot))
        waited = (self._clock.now() - tracked.plan.since).total_seconds()
        waits = snapshot.jobs and all(job.state in WAITING_STATES for job in snapshot.jobs)
        if waits and not tracked.task_started and waited > self._settings.waiting_after:
            self._send(tracked, TaskEvent.WAITING, waiting_seconds=waited)

    def end(self, tracked: TrackedJob, snapshot: TrackedJobSnapshot, status: TaskStatus, reason: str) -> None:
        """Tell of the task's end; first of its start, if no pass saw it run."""
        host = _nodes(tracked, snapshot)
        self._tell_start(tracked, host)
        if status in _ENDS:
            self._send(tracked, _ENDS[status], host=host, reason=reason)
        self._sent = {(task, event) for task, event in self._sent if task != tracked.folder.task}

    def finish(self, seconds: float) -> None:
        """Wait for deliveries, for so long at most."""
        self._delivery.finish(seconds)

    def _tell_start(self, tracked: TrackedJob, host: str) -> None:
        if TaskEvent.STARTED not in self._wanted:
            return
        with suppress(HpcAgentError, OSError):
            start = tracked.folder.start()
            if start is not None and self._clock.now() - start.at < _NEWS_FOR:
                self._send(tracked, TaskEvent.STARTED, host=host)

    def _send(
        self, tracked: TrackedJob, event: TaskEvent, *, host: str = "", reason: str = "", waiting_seconds: float = 0.0
    ) -> None:
        task, job = tracked.folder.task, tracked.job.id
        is_element = "_" in job
        if event not in self._wanted or is_element or (task, event) in self._sent or self._was_sent(tracked, event):
            return
        self._sent.add((task, event))
        notification = Notification(
            event, task, self._clock.now(), reason, waiting_seconds, job=job, host=host, cluster=tracked.plan.cluster
        )
        try:
            self._delivery.send(notification)
        except Exception as error:  # noqa: BLE001 - notifications must not cost a pass
            log.error("notification.not_found", error=error, trace=True)

    def _was_sent(self, tracked: TrackedJob, event: TaskEvent) -> bool:
        """Whether an earlier follower sent it; from now on it counts as sent."""
        with suppress(HpcAgentError, OSError):  # twice after a restart is better than never
            record = tracked.folder.notified()
            if event.value in record.events:
                return True
            events = (*record.events, event.value)
            tracked.folder.write_notified(NotifiedRecord(at=self._clock.now(), events=events))
        return False


def _nodes(tracked: TrackedJob, snapshot: TrackedJobSnapshot) -> str:
    """Where it runs, or ran; empty where that is not one answer."""
    found = [job.nodes for job in snapshot.jobs if job.nodes] or [each.nodes for each in snapshot.records if each.nodes]
    return found[0] if len(set(found)) == 1 else tracked.sidecar.host if tracked.sidecar else ""
