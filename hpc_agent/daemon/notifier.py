"""Events of tasks, found by comparing what each pass of the daemon sees with what was sent before.

An event is written down before it is sent: a daemon that dies in between loses it, and it is not sent twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.config.notify_settings import NotifySettings
from hpc_agent.daemon.notification_delivery import NotificationDelivery
from hpc_agent.daemon.observe import ClusterSnapshot
from hpc_agent.daemon.run_state import RunDirectoryState
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.notification import Notification, TaskEvent
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import EventLog
from hpc_agent.runs.attempt_records import NotifiedRecord

log = EventLog("notify")

_NEWS_FOR = timedelta(hours=1)
"""A start that was longer ago is not reported: the daemon was away, or reports starts only since now."""
_ENDS = {"completed": TaskEvent.COMPLETED, "failed": TaskEvent.FAILED, "stopped": TaskEvent.STOPPED}


class Notifier:
    """Notifier of one daemon; costs nothing where no event has a target."""

    def __init__(self, client: Client, settings: NotifySettings, cluster: str, clock: Clock) -> None:
        self._settings = settings
        self._cluster = cluster
        self._clock = clock
        self._wanted = frozenset(event for event in TaskEvent if getattr(settings, event.setting).is_set)
        self._sent: set[tuple[Attempt, TaskEvent]] = set()
        self._delivery = NotificationDelivery(client, settings, clock)

    def update(self, world: ClusterSnapshot) -> None:
        """Tell of what this pass sees for the first time. Never raises, and waits for no target."""
        if not self._wanted:
            return
        try:
            self._compare(world)
        except Exception as error:  # noqa: BLE001 - notifications must not cost a pass
            log.error("notification.not_found", error=error, trace=True)

    def _compare(self, world: ClusterSnapshot) -> None:
        queues = {attempt: queue for queue in world.queues for attempt in world.waiting.get(queue.id, ())}
        for attempt, snapshot in world.snapshots.items():
            files = world.files[attempt]
            queue = queues.get(attempt)
            name = queue.name if queue else files.submission.queue_name if files.submission else ""
            added = snapshot.entry.added if snapshot.entry else ""
            for notification in self._events(attempt, files, added, name):
                if notification.event in self._wanted and self._is_first(attempt, files, notification.event):
                    self._delivery.send(notification)
        seen = world.snapshots.keys()
        self._sent = {(attempt, event) for attempt, event in self._sent if attempt in seen}

    def finish(self, seconds: float) -> None:
        """Wait for deliveries, for so long at most."""
        self._delivery.finish(seconds)

    def _events(self, attempt: Attempt, files: RunDirectoryState, added: str, queue: str) -> Iterator[Notification]:
        now, claim, report = self._clock.now(), files.claim, files.report
        job = (claim.job if claim else "") or (files.submission.job if files.submission else "")
        host = claim.host if claim and claim.job else ""

        def event(kind: TaskEvent, at: datetime, reason: str = "", waiting: float = 0.0) -> Notification:
            return Notification(kind, attempt.task, at, reason, waiting, queue, job, host, self._cluster)

        waited = _seconds_since(added, now)
        if waited > self._settings.waiting_after and claim is None:
            yield event(TaskEvent.WAITING, now, waiting=waited)
        if claim is not None and claim.state == "won" and claim.user_process_started and now - claim.at < _NEWS_FOR:
            yield event(TaskEvent.STARTED, claim.at)
        if report is not None and report.cause is None and report.status in _ENDS:
            yield event(_ENDS[report.status], report.at, report.reason)

    def _is_first(self, attempt: Attempt, files: RunDirectoryState, event: TaskEvent) -> bool:
        """Whether it was not sent before, also by an earlier daemon; from now on it counts as sent."""
        if (attempt, event) in self._sent:
            return False
        self._sent.add((attempt, event))
        with suppress(HpcAgentError, OSError):  # twice after a restart is better than never
            record = files.directory.notified()
            if event.value in record.events:
                return False
            events = (*record.events, event.value)
            files.directory.create().write_notified(NotifiedRecord(at=self._clock.now(), events=events))
        return True


def _seconds_since(added: str, now: datetime) -> float:
    """Of a queue entry's time stamp; 0 where there is none that can be read."""
    try:
        at = datetime.fromisoformat(added.replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return (now - (at if at.tzinfo else at.replace(tzinfo=timezone.utc))).total_seconds()
