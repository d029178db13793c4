"""Guard around what a pass does for one attempt: its error is shown on its task and keeps no other one waiting."""

from __future__ import annotations

from collections.abc import Callable

from hpc_agent.daemon.observe import ClusterObserver, ClusterSnapshot
from hpc_agent.daemon.task_errors import TaskErrorReporter
from hpc_agent.daemon.waiting_tasks import WaitingTasks
from hpc_agent.domain.attempt import Attempt
from hpc_agent.domain.queue import Queue
from hpc_agent.errors import HpcAgentError, SchedulerUnavailableError, ServerUnreachableError
from hpc_agent.logs import EventLog

log = EventLog("daemon")


class AttemptGuard:
    def __init__(self, task_errors: TaskErrorReporter, observer: ClusterObserver, waiting: WaitingTasks) -> None:
        self._task_errors = task_errors
        self._observer = observer
        self._waiting = waiting

    def __call__(self, cluster: ClusterSnapshot, attempt: Attempt, act: Callable[[], None]) -> bool:
        """Keep one attempt's error from the others; False if the server or scheduler gave no answer."""
        try:
            act()
        except (ServerUnreachableError, SchedulerUnavailableError) as error:
            log.warning("task.no_answer", task=attempt.task, error=error)
            return False
        except Exception as error:  # noqa: BLE001 - one poisoned task must not hold up all queues
            known = isinstance(error, (HpcAgentError, OSError))
            log.error("task.action_failed", task=attempt.task, attempt=attempt.id, error=error, trace=not known)
            snapshot = cluster.snapshots[attempt]
            if snapshot.entry is not None:
                may_fail = not snapshot.jobs and snapshot.claimed is None
                self.report(attempt, error, cluster.queue_of[attempt], may_fail=may_fail)
        return True

    def report(self, attempt: Attempt, error: Exception, queue: Queue, *, may_fail: bool) -> None:
        """Show the error on the task; the queue goes on."""
        self._observer.remember(attempt)
        try:
            self._task_errors.report(attempt, error, queue, may_fail=may_fail)
        except Exception as second:  # noqa: BLE001 - the next pass meets it again
            log.error("task.error_not_reported", task=attempt.task, attempt=attempt.id, error=second)
        self._waiting.shelve(attempt, self._task_errors.pause(attempt))
