"""From waiting to running: the task of a job that Slurm started is set started."""

from __future__ import annotations

from enum import Enum

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.tracking.records import Begun, Folder, Plan


class Start(Enum):
    STARTED = "started"
    WITHDRAWN = "withdrawn"
    """Somebody aborted the task, or took it off its queue, while the job waited."""
    ELSEWHERE = "elsewhere"
    """Deleted, or on another queue: this job has no task any more."""


def begin(client: Client, folder: Folder, plan: Plan, job: str, clock: Clock) -> Start:
    """Called by whoever sees the job run first, and by others after; once it says STARTED it always does.

    Raises:
        ServerUnreachableError, ApiError: nothing is decided; call again.
    """
    if folder.begun():
        return Start.STARTED
    task = folder.task
    seen = client.tasks.glimpse([task]).get(task)
    if seen is None:
        return Start.ELSEWHERE
    if seen.status is TaskStatus.STOPPED or (seen.status is TaskStatus.CREATED and plan.queue):
        return Start.WITHDRAWN
    if seen.status is TaskStatus.QUEUED:
        holder = client.queues.holding(task)
        if holder is not None and holder.id != plan.queue:
            return Start.ELSEWHERE
    if plan.queue:
        # A script's own Task.init() may have started the task before us, which leaves its entry in the queue.
        client.queues.remove_task(QueueId(plan.queue), task)
    if seen.status in (TaskStatus.QUEUED, TaskStatus.CREATED):
        client.tasks.started(task, "its Slurm job started", f"Slurm job {job} is running")
    folder.write_begun(Begun(at=clock.now()))
    return Start.STARTED
