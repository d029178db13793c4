"""Submissions to which sbatch gave no clear answer: their jobs are found by name, or their tasks end.

An error that this version does not know was a refusal if two searches (``job_search``), some time apart, find no job
while the scheduler answers.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import JobId, QueueId, TaskId
from hpc_agent.domain.job import UNCONFIRMED_LIMIT_S
from hpc_agent.domain.outcome import in_one_line
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import HpcAgentError, SchedulerUnavailableError
from hpc_agent.logs import EventLog
from hpc_agent.retry import INTERACTIVE, ONCE
from hpc_agent.schedulers.base import Scheduler
from hpc_agent.tracking.job_search import AmbiguousJobError, JobSearch
from hpc_agent.tracking.tracked_records import (
    TrackedDirectory,
    TrackedJobRecord,
    TrackedRoot,
    TrackingPlan,
    UnclearSubmissionRecord,
)
from hpc_agent.wire.task_requests import job_runtime

log = EventLog("follow")

_DIED_AFTER = timedelta(hours=1)
"""Who called sbatch and wrote down no answer for so long has died. With --wait the answer may be slower, but the job is
there by then and found by its name."""
_SBATCH = timedelta(seconds=150)
"""For so long sbatch may try by itself."""


class _UnclearSubmission(msgspec.Struct, frozen=True):
    folder: TrackedDirectory
    plan: TrackingPlan
    unclear: UnclearSubmissionRecord


class UnclearSubmissions:
    """Submissions whose job is not known yet: each pass finds the jobs that can be found, or ends their tasks.

    ``look_up_seconds``: seconds between the two searches.
    """

    def __init__(
        self, client: Client, scheduler: Scheduler, folders: TrackedRoot, clock: Clock, look_up_seconds: float
    ) -> None:
        self._client = client
        self._scheduler = scheduler
        self._folders = folders
        self._job_search = JobSearch(scheduler, folders)
        self._clock = clock
        self._look_up_for = look_up_seconds

    def left(self) -> int:
        """How many are to be looked up. One whose sbatch ended well waits for its job to record itself."""
        return sum(1 for found in self._all() if not found.unclear.given_up)

    def run_pass(self) -> None:
        """
        Raises:
            ServerUnreachableError, SchedulerUnavailableError: nothing is concluded; call again.
        """
        submissions = self._all()
        if not submissions:
            return
        tasks = self._client.tasks.get_states([found.folder.task for found in submissions], budget=ONCE)
        for found in submissions:
            seen = tasks.get(found.folder.task)
            try:
                self._settle(found, seen.status if seen else None)
            except (HpcAgentError, OSError) as error:
                log.warning("task.action_failed", task=found.folder.task, error=error)

    def _settle(self, found: _UnclearSubmission, status: TaskStatus | None) -> None:
        """``status``: None of a task that was deleted."""
        if status is None or (found.unclear.given_up and status.is_final):
            log.info("job.search_ended", task=found.folder.task)
            found.folder.remove()
        elif not found.unclear.given_up:
            self._look_up(found, status)

    def _all(self) -> list[_UnclearSubmission]:
        found = []
        for folder in self._folders.all():
            try:
                plan = folder.plan()
                unclear = (folder.unclear() or self._died(plan)) if plan else None
                if plan is None or unclear is None or folder.job() is not None:
                    continue
                if plan.cluster in ("", self._scheduler.cluster()):
                    found.append(_UnclearSubmission(folder, plan, unclear))
            except SchedulerUnavailableError:
                raise
            except (HpcAgentError, OSError) as error:
                log.error("task.folder_unreadable", task=folder.task, error=error)
        return found

    def _died(self, plan: TrackingPlan) -> UnclearSubmissionRecord | None:
        if not plan.job_name or self._clock.now() - plan.since < _DIED_AFTER:
            return None  # an element of an array is recorded by its own job
        return UnclearSubmissionRecord(
            at=plan.since + _SBATCH, exit_code=None, message="hpc-agent sbatch died before it had an answer"
        )

    def _look_up(self, found: _UnclearSubmission, status: TaskStatus) -> None:
        folder, unclear, now = found.folder, found.unclear, self._clock.now()
        try:
            job = self._job_search.by_name(folder, found.plan, unclear.at, exists=unclear.exit_code == 0)
        except AmbiguousJobError as error:
            log.debug("job.ambiguous", task=folder.task, error=error)
            if (now - unclear.at).total_seconds() > UNCONFIRMED_LIMIT_S:
                self._give_up(found, status)
            return
        if job is not None:
            log.info("job.found", task=folder.task, job=job)
            folder.write_job(TrackedJobRecord(id=job, known=True))
            show_job(self._client, folder.task, job)
        elif unclear.looked_at is None:
            folder.write_unclear(msgspec.structs.replace(unclear, looked_at=now))
        elif abs((now - unclear.looked_at).total_seconds()) > self._look_up_for:
            self._give_up(found, status)

    def _give_up(self, found: _UnclearSubmission, status: TaskStatus) -> None:
        folder, unclear = found.folder, found.unclear
        if status.is_final or (status is TaskStatus.CREATED and found.plan.queue):
            folder.remove()  # its user has ended it, or taken it off the queue
            return
        if unclear.exit_code == 0 or status not in (TaskStatus.QUEUED, TaskStatus.CREATED):
            given_up = msgspec.structs.replace(unclear, given_up=True)
            folder.write_unclear(given_up)
            show_doubt(self._client, folder.task, given_up)
            return
        ended = "" if unclear.exit_code is None else f"sbatch ended with exit code {unclear.exit_code} and "
        reason = f"{ended}no job is known: {unclear.message}"
        log.info("task.ended", task=folder.task, reason=reason)
        if found.plan.queue:
            self._client.queues.remove_task(QueueId(found.plan.queue), folder.task)
        self._client.tasks.set_final_status(
            folder.task, TaskStatus.FAILED, in_one_line(reason), "sbatch", budget=INTERACTIVE, force=True
        )
        folder.remove()


def show_job(client: Client, task: TaskId, job: JobId | str) -> None:
    """Say on the task which job it has."""
    client.tasks.set_properties(task, {"slurm_job_id": job})
    client.tasks.add_runtime(task, job_runtime(job))


def show_doubt(client: Client, task: TaskId, unclear: UnclearSubmissionRecord) -> None:
    """Say on the task what sbatch said."""
    if unclear.exit_code:
        text = f"sbatch failed: {unclear.message}; the task fails with that unless a job of it shows up"
    elif unclear.given_up:
        text = f"no job is known of this submission; take the task off its queue if there is none: {unclear.message}"
    else:
        text = f"sbatch did not say which job it made, looking for it: {unclear.message}"
    try:
        client.tasks.set_status_message(task, in_one_line(text), budget=ONCE)
    except HpcAgentError as error:
        log.warning("task.message_not_shown", task=task, error=error)
