"""Start of a tracked task: the task of a job that Slurm started is set started; elements of an array get theirs.

Elements' tasks are made in their jobs and not at submission: a thousand tasks would keep a user waiting for minutes,
and elements may wait for days.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.clock import Clock
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.status import TaskStatus
from hpc_agent.errors import InputError
from hpc_agent.schedulers.slurm.backend import own_job_id
from hpc_agent.tracking.describe import INDEX
from hpc_agent.tracking.tracked_records import (
    ElementRecord,
    StartRecord,
    TrackedDirectory,
    TrackedJobRecord,
    TrackingPlan,
)
from hpc_agent.wire.task_requests import job_runtime, script_to_wire


def job_id(environ: Mapping[str, str]) -> str:
    """
    Raises:
        InputError: this is not a Slurm job.
    """
    job = own_job_id(environ)
    if job is None:
        raise InputError("this is for the inside of a Slurm job, and SLURM_JOB_ID is not set")
    return job


def element(client: Client, folder: TrackedDirectory, environ: Mapping[str, str], clock: Clock) -> TaskId:
    """The task of this element of the array whose folder this is; made at the element's first start.

    Raises:
        InputError: this is not an element of a tracked array.
        ApiError, ServerUnreachableError: the server cannot make it.
    """
    job = job_id(environ)
    plan = folder.plan()
    if plan is None or not plan.element or "_" not in job:
        raise InputError(f"{folder.path} is not the folder of an array's task")
    index = int(job.partition("_")[2])
    known = folder.child(index)
    if known is None:
        start_task(client, folder, plan, job, clock)
        known = ElementRecord(task=_clone(client, folder.task, plan, job, index))
        # Followed from here on: this process gets little time, and who comes after it must find the task.
        _note(folder.sibling(TaskId(known.task)), plan, job)
        folder.write_child(index, known)
    own = folder.sibling(TaskId(known.task))
    if own.job() is None:
        _note(own, plan, job)
    return TaskId(known.task)


def _note(own: TrackedDirectory, array: TrackingPlan, job: str) -> None:
    plan = TrackingPlan(task=own.task, since=array.since, cluster=array.cluster, hooked=True, outputs=array.outputs)
    own.create(plan)
    own.write_job(TrackedJobRecord(id=job, known=True))


def _clone(client: Client, array: TaskId, plan: TrackingPlan, job: str, index: int) -> TaskId:
    task = client.tasks.get(array)
    child = client.tasks.clone(array, f"{task.name} [{index}]", parent=array)
    script = replace(task.script, entry_point=plan.element.replace(INDEX, str(index)))
    client.tasks.edit(child, {"script": script_to_wire(script), "runtime": job_runtime(job)})
    client.tasks.set_properties(child, {"slurm_job_id": job})
    return child


class StartReport(Enum):
    STARTED = "started"
    WITHDRAWN = "withdrawn"
    """A user aborted the task, or took it off its queue, while the job waited."""
    ELSEWHERE = "elsewhere"
    """Deleted, or on another queue: this job has no task any more."""


def start_task(client: Client, folder: TrackedDirectory, plan: TrackingPlan, job: str, clock: Clock) -> StartReport:
    """Set the task started: called by the process that sees the job run first, and by others after. Once it returns
    STARTED it always does.

    Raises:
        ServerUnreachableError, ApiError: nothing is decided; call again.
    """
    if folder.start():
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
    folder.write_start(StartRecord(at=clock.now()))
    return StartReport.STARTED
