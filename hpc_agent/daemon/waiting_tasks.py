"""Waiting tasks: what the daemon does for them in addition to submitting them: it shows why they wait, leaves them
alone for a while, and rejects them."""

from __future__ import annotations

from msgspec.structs import replace

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.daemon.act import Actor
from hpc_agent.domain.actions import RejectTask, SetStatusMessage
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.queue import Queue
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import ApiError
from hpc_agent.logs import EventLog
from hpc_agent.runs.directory import RunDirectory, RunsFolder

log = EventLog("daemon")

LEFT_S = 600.0
"""How long a task that this cluster cannot run stays for other clusters of its queue before it is tried here again."""


class WaitingTasks:
    """``cluster``: its name, for the messages of queues that several clusters serve."""

    def __init__(self, actor: Actor, runs: RunsFolder, settings: HpcSettings, cluster: str, clock: Clock) -> None:
        self._actor = actor
        self._runs = runs
        self._settings = settings
        self._cluster = cluster
        self._clock = clock
        self._shelved: dict[Attempt, float] = {}
        """Until when each is left alone."""

    def shelve(self, attempt: Attempt, seconds: float) -> None:
        """Submit it no sooner than after ``seconds``."""
        self._shelved[attempt] = self._clock.monotonic() + seconds

    def shelved(self) -> frozenset[Attempt]:
        """Those that are left alone now."""
        now = self._clock.monotonic()
        self._shelved = {attempt: until for attempt, until in self._shelved.items() if until > now}
        return frozenset(self._shelved)

    def say(self, attempt: Attempt, action: SetStatusMessage, directory: RunDirectory) -> None:
        """A message that the server refuses keeps no task from its job."""
        try:
            self._actor.set_status_message(attempt, action, directory)
        except ApiError as error:
            log.warning("task.message_refused", task=attempt.task, error=error)

    def say_in(self, queue: Queue, attempt: Attempt, message: str) -> None:
        """``say``, of a task in this queue."""
        self.say(attempt, self.named(queue.name, SetStatusMessage(message)), self._runs.of(attempt))

    def named(self, queue: str, action: SetStatusMessage) -> SetStatusMessage:
        """In a shared queue each cluster has something to report of a task that waits."""
        if not self._settings.queue(queue).shared:
            return action
        return replace(action, message=f"{self._cluster}: {action.message}")

    def reject(self, queue: Queue, attempt: Attempt, action: RejectTask) -> None:
        """Give a waiting task its final status. Where other clusters serve its queue, they may be able to run it."""
        directory = self._runs.of(attempt)
        if action.status is not TaskStatus.FAILED or not self._settings.queue(queue.name).shared:
            self._actor.reject(attempt, directory, queue, action)
            return
        log.info("task.left_to_others", task=attempt.task, queue=queue.name, reason=action.reason)
        self.shelve(attempt, LEFT_S)
        message = SetStatusMessage(f"left to other clusters of its queue: {action.reason}")
        self._actor.show_error(attempt, self.named(queue.name, message).message)

    def fail(self, queue: Queue, attempt: Attempt, reason: str) -> None:
        """``reject`` it as failed."""
        self.reject(queue, attempt, RejectTask(TaskStatus.FAILED, reason))
