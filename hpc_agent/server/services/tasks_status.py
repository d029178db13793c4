"""A task's way through its statuses (docs/internals/clearml-protocol.md#status-transitions) and queues."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, RequestBody, Service
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.authorization import may
from hpc_agent.server.services.pipeline_steps import with_steps
from hpc_agent.server.services.publication import publish_task
from hpc_agent.server.services.queues import create_queue, default_queue, existing_queue, note_length, queue_named
from hpc_agent.server.services.transitions import change_status, existing_task
from hpc_agent.server.services.workers import watched
from hpc_agent.server.store import key_store, queue_rows
from hpc_agent.server.store.documents import Document, queues, tasks
from hpc_agent.wire.error_kinds import NO_PERMISSION, TASK_ALREADY_QUEUED

service = Service("tasks")

_DEVELOPMENT = "development"
_STOPPABLE = (TaskStatus.QUEUED.value, TaskStatus.IN_PROGRESS.value)
_LIVE = timedelta(seconds=600)
"""A task whose worker was silent for longer is stopped at once, not asked to stop."""
STOPPING = "stopping"
"""The status message by which a worker sees that it must stop (docs/internals/clearml-protocol.md#abort)."""


class StatusRequest(RequestBody, frozen=True):
    task: str
    force: bool = False
    status_reason: str = ""
    status_message: str = ""


class StopTaskRequest(StatusRequest, frozen=True):
    include_pipeline_steps: bool = False


class CompletedRequest(StatusRequest, frozen=True):
    publish: bool = False


class PublishRequest(StatusRequest, frozen=True):
    publish_model: bool = True


class EnqueueRequest(StatusRequest, frozen=True):
    queue: str | None = None
    queue_name: str | None = None
    verify_watched_queue: bool = False
    update_execution_queue: bool = True


class DequeueRequest(StatusRequest, frozen=True):
    new_status: TaskStatus | None = None
    remove_from_all_queues: bool = False


class PingRequest(RequestBody, frozen=True):
    task: str


def _to(request: StatusRequest, call: Call, task: Document, new: TaskStatus, **also: Any) -> Answer:
    return change_status(
        call,
        task,
        new,
        force=request.force,
        reason=request.status_reason,
        message=request.status_message,
        also=also,
    )


@service.action(PingRequest, Access.REPORT)
def ping(request: PingRequest, call: Call) -> Answer:
    """Heartbeat of a running task, so that it is not stopped as silent."""
    tasks.update(call.db, request.task, {"last_update": call.time})
    return {}


@service.action(StatusRequest, Access.WRITE)
def started(request: StatusRequest, call: Call) -> Answer:
    """Set a task in progress. Allowed again on a running task, as on the reference server: it does not fence."""
    task = existing_task(call, request.task, ("status", "started"))
    runs = task["status"] == TaskStatus.IN_PROGRESS.value and "started" in task
    first = {} if runs else {"started": call.time, "completed": None, "active_duration": None}
    return {**_to(request, call, task, TaskStatus.IN_PROGRESS, **first), "started": 0 if runs else 1}


def _ended(request: StatusRequest, call: Call, new: TaskStatus) -> Answer:
    task = existing_task(call, request.task, ("status", "started"))
    also: dict[str, Any] = {"completed": call.time}
    if "started" in task:
        also["active_duration"] = int((call.now - datetime.fromisoformat(task["started"])).total_seconds())
    return _to(request, call, task, new, **also)


@service.action(CompletedRequest, Access.WRITE)
def completed(request: CompletedRequest, call: Call) -> Answer:
    """Set a task completed."""
    answer = {**_ended(request, call, TaskStatus.COMPLETED), "published": 0}
    if request.publish:
        published = _publish(request, call, existing_task(call, request.task, ("status", "models")))
        fields = {**answer["fields"], "status": published["fields"]["status"]}
        answer = {**answer, "published": published["updated"], "fields": fields}
    return answer


@service.action(StatusRequest, Access.WRITE)
def failed(request: StatusRequest, call: Call) -> Answer:
    """Set a task failed."""
    return _ended(request, call, TaskStatus.FAILED)


@service.action(StatusRequest, Access.WRITE)
def stopped(request: StatusRequest, call: Call) -> Answer:
    """Set a task stopped."""
    return _ended(request, call, TaskStatus.STOPPED)


@service.action(StatusRequest, Access.WRITE)
def close(request: StatusRequest, call: Call) -> Answer:
    """Set a task closed."""
    return _to(request, call, existing_task(call, request.task, ("status",)), TaskStatus.CLOSED)


@service.action(PublishRequest, Access.WRITE)
def publish(request: PublishRequest, call: Call) -> Answer:
    """Set a task published."""
    task = existing_task(call, request.task, ("status", "models"))
    return _publish(request, call, task, with_models=request.publish_model)


def _publish(request: StatusRequest, call: Call, task: Document, *, with_models: bool = True) -> Answer:
    reason, message = request.status_reason, request.status_message
    return publish_task(call, task, force=request.force, with_models=with_models, reason=reason, message=message)


@service.action(StopTaskRequest, Access.WRITE)
def stop(request: StopTaskRequest, call: Call) -> Answer:
    """Ask the agent that runs the task to stop it; without a live agent stop it at once."""
    for step in with_steps(call, [request.task], include=request.include_pipeline_steps)[1:]:
        if existing_task(call, step, ("status",))["status"] in _STOPPABLE:
            _stop(replace(request, task=step), call)
    return _stop(request, call)


def _stop(request: StopTaskRequest, call: Call) -> Answer:
    task = existing_task(call, request.task, ("status", "system_tags", "last_worker", "last_update"))
    status = TaskStatus(task["status"])
    live = "last_worker" in task and call.now - datetime.fromisoformat(task["last_update"]) < _LIVE
    if status is not TaskStatus.QUEUED and _DEVELOPMENT not in task["system_tags"] and live:
        return change_status(call, task, status, force=request.force, reason=request.status_reason, message=STOPPING)
    queue_rows.remove_everywhere(call.db, request.task)
    message = f"Stopped by {call.identity.user_name}"
    return change_status(
        call, task, TaskStatus.STOPPED, force=request.force, reason=request.status_reason, message=message
    )


@service.action(EnqueueRequest, Access.WRITE)
def enqueue(request: EnqueueRequest, call: Call) -> Answer:
    """Put a task into one queue and remove it from all others. Refused if it is in that queue."""
    task = existing_task(call, request.task, ("status", "enqueue_status", "execution", "system_tags"))
    queue = queue_of(request.queue, request.queue_name, call)
    status = TaskStatus(task["status"])
    if queue_rows.holds(call.db, queue, request.task):
        raise ApiFault(TASK_ALREADY_QUEUED, task=request.task)
    # One that moves from queue to queue remembers what it was before the first.
    before = task.get("enqueue_status", TaskStatus.CREATED.value) if status is TaskStatus.QUEUED else status.value
    execution = dict(task.get("execution", {}))
    if request.update_execution_queue:
        execution["queue"] = queue
    answer = _to(
        request,
        call,
        task,
        TaskStatus.QUEUED,
        enqueue_status=before,
        execution=execution,
        system_tags=[tag for tag in task["system_tags"] if tag != _DEVELOPMENT],
    )
    if status.is_final:
        # A new run: key pairs of earlier runs must stay invalid.
        key_store.remove_of_task(call.db, request.task)
    queue_rows.remove_everywhere(call.db, request.task)
    queue_rows.append(call.db, queue, request.task, call.time)
    note_length(call, queue)
    queues.update(call.db, queue, {"last_update": call.time})
    # Clients look for the dotted name and need not get the artifacts back.
    fields = {name: value for name, value in answer["fields"].items() if name != "execution"}
    answer = {**answer, "queued": 1, "fields": {**fields, "execution.queue": queue}}
    return {**answer, "queue_watched": watched(call, queue)} if request.verify_watched_queue else answer


def queue_of(queue: str | None, queue_name: str | None, call: Call) -> str:
    """The id of the queue that an enqueue names, by id or name; one named for the first time is created."""
    if queue and queue_name:
        raise invalid("give either queue or queue_name")
    if queue:
        return str(existing_queue(call, queue)["id"])
    if not queue_name:
        return str(default_queue(call)["id"])
    if present := queue_named(call, queue_name):
        return present
    if not may(call, "queues.create"):
        raise ApiFault(
            NO_PERMISSION, "the queue does not exist, and these credentials may not create one", name=queue_name
        )
    return create_queue(call, queue_name)


@service.action(DequeueRequest, Access.WRITE)
def dequeue(request: DequeueRequest, call: Call) -> Answer:
    """Remove a task from its queue; its status becomes the one before, or ``new_status``.

    A task that is neither queued nor (with ``new_status``) running is left alone and answered ``updated: 0``, as is one
    that does not exist (docs/internals/clearml-protocol.md#dequeue).
    """
    removed = queue_rows.remove_everywhere(call.db, request.task)
    task = tasks.get(call.db, request.task, ("status", "enqueue_status"))
    queued = task is not None and task["status"] == TaskStatus.QUEUED.value
    running = task is not None and task["status"] == TaskStatus.IN_PROGRESS.value
    if task is None or not (queued or (running and request.new_status)):
        return {"updated": 0, "dequeued": removed, "fields": {}}
    new = request.new_status or TaskStatus(task.get("enqueue_status", TaskStatus.CREATED.value))
    answer = change_status(
        call,
        task,
        new,
        force=True,
        reason=request.status_reason,
        message=request.status_message,
        also={"enqueue_status": None},
    )
    return {**answer, "dequeued": removed}
