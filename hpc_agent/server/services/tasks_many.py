"""``tasks.*``: calls about many tasks at once, moves between projects, and tags."""

from __future__ import annotations

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, Ids, Json, RequestBody, Service, unique
from hpc_agent.server.services.batch import for_each
from hpc_agent.server.services.deletion import ARCHIVED
from hpc_agent.server.services.pipeline_steps import with_steps
from hpc_agent.server.services.projects import project_of_move
from hpc_agent.server.services.publication import publish_task
from hpc_agent.server.services.tasks_status import (
    DequeueRequest,
    EnqueueRequest,
    StopTaskRequest,
    dequeue,
    enqueue,
    queue_of,
    stop,
)
from hpc_agent.server.services.tasks_write import CreateTaskRequest, checked_content
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.services.workers import watched
from hpc_agent.server.store import queue_rows
from hpc_agent.server.store.documents import tasks

service = Service("tasks")


class ArchiveRequest(RequestBody, frozen=True):
    tasks: Ids
    include_pipeline_steps: bool = False
    status_reason: str = ""
    status_message: str = ""


class _ManyRequest(RequestBody, frozen=True, kw_only=True):
    ids: Ids


class _ManyStatusRequest(_ManyRequest, frozen=True, kw_only=True):
    status_reason: str = ""
    status_message: str = ""
    force: bool = False


class WithStepsRequest(_ManyStatusRequest, frozen=True, kw_only=True):
    include_pipeline_steps: bool = False


class PublishManyTasksRequest(_ManyStatusRequest, frozen=True, kw_only=True):
    publish_model: bool = True


class EnqueueManyRequest(_ManyStatusRequest, frozen=True, kw_only=True):
    queue: str | None = None
    queue_name: str | None = None
    verify_watched_queue: bool = False


class DequeueManyRequest(_ManyStatusRequest, frozen=True, kw_only=True):
    new_status: TaskStatus | None = None


class MoveTasksRequest(_ManyRequest, frozen=True, kw_only=True):
    project: str | None = None
    project_name: str | None = None


class UpdateTagsRequest(_ManyRequest, frozen=True, kw_only=True):
    add_tags: list[str] = []
    remove_tags: list[str] = []


class EditRuntimeRequest(RequestBody, frozen=True):
    task: str
    runtime: Json
    force: bool = False


@service.action(EnqueueManyRequest, Access.WRITE)
def enqueue_many(request: EnqueueManyRequest, call: Call) -> Answer:
    """Put tasks into one queue, in the order of their ids."""
    queue = queue_of(request.queue, request.queue_name, call)

    def put(id: str) -> Answer:
        one = EnqueueRequest(
            task=id,
            queue=queue,
            force=request.force,
            status_reason=request.status_reason,
            status_message=request.status_message,
        )
        return enqueue(one, call)

    answer = for_each(call, request.ids, put)
    return {**answer, "queue_watched": watched(call, queue)} if request.verify_watched_queue else answer


@service.action(DequeueManyRequest, Access.WRITE)
def dequeue_many(request: DequeueManyRequest, call: Call) -> Answer:
    """Remove tasks from their queues."""

    def take(id: str) -> Answer:
        existing_task(call, id, ("status",))
        one = DequeueRequest(
            task=id,
            new_status=request.new_status,
            status_reason=request.status_reason,
            status_message=request.status_message,
        )
        return dequeue(one, call)

    return for_each(call, request.ids, take)


@service.action(WithStepsRequest, Access.WRITE)
def stop_many(request: WithStepsRequest, call: Call) -> Answer:
    """Ask the agents that run the tasks to stop them; without a live agent stop them at once."""
    reason, message, force = request.status_reason, request.status_message, request.force
    steps = request.include_pipeline_steps

    def ask(id: str) -> Answer:
        one = StopTaskRequest(id, force, reason, message, include_pipeline_steps=steps)
        return stop(one, call)

    return for_each(call, request.ids, ask)


@service.action(PublishManyTasksRequest, Access.WRITE)
def publish_many(request: PublishManyTasksRequest, call: Call) -> Answer:
    """Set tasks published."""

    def publish(id: str) -> Answer:
        return publish_task(
            call,
            existing_task(call, id, ("status", "models")),
            force=request.force,
            with_models=request.publish_model,
            reason=request.status_reason,
            message=request.status_message,
        )

    return for_each(call, request.ids, publish)


@service.action(ArchiveRequest, Access.WRITE)
def archive(request: ArchiveRequest, call: Call) -> Answer:
    """Archive tasks, and remove them from their queues."""
    reason = {"status_reason": request.status_reason, "status_message": request.status_message}
    steps = request.include_pipeline_steps
    return {"archived": sum(_archive(call, id, steps, **reason) for id in unique(request.tasks))}


@service.action(WithStepsRequest, Access.WRITE)
def archive_many(request: WithStepsRequest, call: Call) -> Answer:
    """Archive tasks, and remove them from their queues."""
    reason = {"status_reason": request.status_reason, "status_message": request.status_message}
    steps = request.include_pipeline_steps
    return for_each(call, request.ids, lambda id: {"archived": bool(_archive(call, id, steps, **reason))})


@service.action(WithStepsRequest, Access.WRITE)
def unarchive_many(request: WithStepsRequest, call: Call) -> Answer:
    """Bring archived tasks back."""

    def bring_back(id: str) -> Answer:
        ids = with_steps(call, [id], include=request.include_pipeline_steps)
        return {"unarchived": bool([_tag(call, one, archived=False) for one in ids])}

    return for_each(call, request.ids, bring_back)


def _archive(call: Call, id: str, steps: bool, **reason: str) -> int:
    """Archive a task and, with ``steps``, those of the pipeline that it is a run of."""
    for step in with_steps(call, [id], include=steps)[1:]:
        _archive(call, step, False, **reason)
    existing_task(call, id, ("id",))
    request = DequeueRequest(task=id)
    if queue_rows.is_queued(call.db, id):
        dequeue(request, call)
        execution = dict(existing_task(call, id, ("execution",)).get("execution", {}))
        execution.pop("queue", None)
        tasks.update(call.db, id, {"execution": execution})
    return _tag(call, id, archived=True, **reason)


def _tag(call: Call, id: str, *, archived: bool, **also: str) -> int:
    found = existing_task(call, id, ("system_tags",))
    tags = [tag for tag in found["system_tags"] if tag != ARCHIVED] + ([ARCHIVED] if archived else [])
    return tasks.update(call.db, id, {"system_tags": tags, "last_change": call.time, **also})


@service.action(MoveTasksRequest, Access.WRITE)
def move(request: MoveTasksRequest, call: Call) -> Answer:
    """Move tasks into a project, which is made where ``project_name`` is new."""
    project = project_of_move(call, request.project, request.project_name)
    changes = {"project": project, "last_update": call.time, "last_change": call.time}
    moved = sum(tasks.update(call.db, id, changes) for id in unique(request.ids))
    return {"project_id": project, "updated": moved}


@service.action(UpdateTagsRequest, Access.WRITE)
def update_tags(request: UpdateTagsRequest, call: Call) -> Answer:
    """Add tags to tasks and remove some."""
    return {"updated": sum(_update_tags(call, id, request) for id in unique(request.ids))}


def _update_tags(call: Call, id: str, request: UpdateTagsRequest) -> int:
    present = tasks.get(call.db, id, ("tags",))
    if present is None:
        return 0
    tags = [tag for tag in unique([*present["tags"], *request.add_tags]) if tag not in set(request.remove_tags)]
    return tasks.update(call.db, id, {"tags": tags, "last_update": call.time, "last_change": call.time})


@service.action(EditRuntimeRequest, Access.WRITE)
def edit_runtime(request: EditRuntimeRequest, call: Call) -> Answer:
    """Replace the runtime properties of a task."""
    existing_task(call, request.task, ("status",))
    changes = {"runtime": request.runtime, "last_update": call.time, "last_change": call.time}
    return {"updated": tasks.update(call.db, request.task, changes)}


@service.action(CreateTaskRequest, Access.READ)
def validate(request: CreateTaskRequest, call: Call) -> Answer:
    """Whether a task could be created like this; refused with the reason where not."""
    checked_content(request, call)
    return {}
