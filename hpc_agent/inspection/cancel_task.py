"""Cancels a task: what is queued leaves its queue, what runs is asked to end, a person's own job is cancelled."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.api.task_views import TaskViews
from hpc_agent.domain.ids import JobId, TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import SchedulerUnavailableError
from hpc_agent.inspection.jobs_observer import read_tracked
from hpc_agent.inspection.task_facts import jobs_of, newest_run
from hpc_agent.inspection.task_row import PENDING, REQUEUED, state_of
from hpc_agent.runs.directory import RunsFolder
from hpc_agent.schedulers.inspector import JobInspector, ListedJob
from hpc_agent.tracking.tracked_jobs import TrackedJob
from hpc_agent.tracking.tracked_records import TrackedRoot

REASON = "cancelled with hpc-agent cancel"


class CancelReport(msgspec.Struct, frozen=True):
    """``sentence``: what was done, or why there was nothing to do; its subject is the task."""

    name: str
    sentence: str


class TaskCanceller:
    """Cancels one task after the other; the jobs are listed once for all."""

    def __init__(
        self,
        client: Client,
        views: TaskViews,
        inspector: JobInspector,
        runs: RunsFolder,
        tracked: TrackedRoot,
        term_grace: float,
    ) -> None:
        self._client = client
        self._views = views
        self._inspector = inspector
        self._runs = runs
        self._tracked = tracked
        self._term_grace = term_grace
        self._listed: Sequence[ListedJob] | None = None

    def cancel(self, task: TaskId) -> CancelReport:
        """
        Raises:
            NotFoundError: there is no such task.
            ServerUnreachableError, SchedulerUnavailableError: no answer; it may be cancelled or not.
        """
        found = self._client.tasks.get(task)
        return CancelReport(found.name, self._cancel(task, found.status))

    def _cancel(self, task: TaskId, status: TaskStatus) -> str:
        if status.is_final:
            return f"had ended before: {status.value}"
        tracked = read_tracked(self._tracked.of(task))
        if tracked is not None:
            return self._cancel_script(tracked)
        if status is TaskStatus.CREATED:
            return "is a draft, nothing of it runs or waits"
        self._views.request_stop(task, REASON)
        if status is TaskStatus.QUEUED:
            return f"was taken off its queue and is stopped{self._cancel_waiting(task)}"
        return (
            f"was asked to end: its program gets SIGTERM, and SIGKILL after {self._term_grace:g} s; "
            f"`hpc-agent logs -f {task[:8]}` shows its last words"
        )

    def _cancel_script(self, tracked: TrackedJob) -> str:
        jobs = jobs_of(tracked.folder.task, None, tracked, self._jobs())
        if not jobs:
            return f"has no job to cancel: the scheduler lists job {tracked.job.id} no more"
        # All elements at once, by the number of their array.
        self._inspector.scheduler.cancel([JobId(tracked.job.id)])
        return f"had job {tracked.job.id}, which was cancelled; the task is stopped when the job has ended"

    def _cancel_waiting(self, task: TaskId) -> str:
        """The daemon would do it in its next pass; without one the job would wait for nothing."""
        try:
            jobs = jobs_of(task, newest_run(self._runs, task), None, self._jobs())
            waiting = [listed.job.id for listed in jobs if state_of(listed.job) in (PENDING, REQUEUED)]
            self._inspector.scheduler.cancel(waiting, only_pending=True)
        except SchedulerUnavailableError as error:
            return f"; its job, if it has one, ends without it ({error})"
        return f"; its job {', '.join(waiting)}, which waited, was cancelled" if waiting else ""

    def _jobs(self) -> Sequence[ListedJob]:
        if self._listed is None:
            self._listed = self._inspector.listed()
        return self._listed
