"""From waiting to running: the task of a job that Slurm started is set started."""

from __future__ import annotations

from enum import Enum

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.tracking.tracked_records import StartRecord, TrackedDirectory, TrackingPlan


class StartReport(Enum):
    STARTED = "started"
    WITHDRAWN = "withdrawn"
    """Somebody aborted the task, or took it off its queue, while the job waited."""
    ELSEWHERE = "elsewhere"
    """Deleted, or on another queue: this job has no task any more."""


def start_task(client: Client, folder: TrackedDirectory, plan: TrackingPlan, job: str, clock: Clock) -> StartReport:
    """Called by whoever sees the job run first, and by others after; once it says STARTED it always does.

    Raises:
        ServerUnreachableError, ApiError: nothing is decided; call again.
    """
    if folder.begun():
        return StartReport.STARTED
    task = folder.task
    seen = client.tasks.get_states([task]).get(task)
    if seen is None:
        return StartReport.ELSEWHERE
    if seen.status is TaskStatus.STOPPED or (seen.status is TaskStatus.CREATED and plan.queue):
        return StartReport.WITHDRAWN
    if seen.status is TaskStatus.QUEUED:
        holder = client.queues.queue_of(task)
        if holder is not None and holder.id != plan.queue:
            return StartReport.ELSEWHERE
    if plan.queue:
        # A script's own Task.init() may have started the task before us, which leaves its entry in the queue.
        client.queues.remove_task(QueueId(plan.queue), task)
    if seen.status in (TaskStatus.QUEUED, TaskStatus.CREATED):
        client.tasks.started(task, "its Slurm job started", f"Slurm job {job} is running")
    folder.write_begun(StartRecord(at=clock.now()))
    return StartReport.STARTED
