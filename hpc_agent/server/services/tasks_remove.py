"""Tasks out of sight, and out of existence."""

from __future__ import annotations

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, Ids, RequestBody, Service, each_once
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.services.run_outputs import drop_models_of
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import event_store, key_store, queue_rows
from hpc_agent.server.store.documents import tasks
from hpc_agent.wire.error_kinds import TASK_CANNOT_BE_DELETED

service = Service("tasks")

_ARCHIVED = "archived"


class DeleteTaskRequest(RequestBody, frozen=True):
    task: str
    force: bool = False
    delete_output_models: bool = True


class ArchiveRequest(RequestBody, frozen=True):
    tasks: Ids
    status_reason: str = ""
    status_message: str = ""


class ManyTasksRequest(RequestBody, frozen=True):
    ids: Ids


@service.action(DeleteTaskRequest, Access.WRITE)
def delete(request: DeleteTaskRequest, call: Call) -> Answer:
    task = existing_task(call, request.task, ("status", "system_tags"))
    if not request.force and task["status"] != TaskStatus.CREATED.value and _ARCHIVED not in task["system_tags"]:
        raise ApiFault(
            TASK_CANNOT_BE_DELETED, "due to its status, use force=true", task=task["id"], status=task["status"]
        )
    deleted_models = drop_models_of(call, request.task) if request.delete_output_models else 0
    queue_rows.remove_everywhere(call.db, request.task)
    event_store.delete_for_task(call.db, request.task)
    key_store.end_with_task(call.db, request.task, call.time)
    return {"deleted": bool(tasks.delete(call.db, request.task)), "deleted_models": deleted_models}


def _tag(call: Call, task: str, archived: bool, **also: str) -> int:
    found = existing_task(call, task, ("system_tags",))
    tags = [tag for tag in found["system_tags"] if tag != _ARCHIVED] + ([_ARCHIVED] if archived else [])
    return tasks.update(call.db, task, {"system_tags": tags, "last_change": call.time, **also})


@service.action(ArchiveRequest, Access.WRITE)
def archive(request: ArchiveRequest, call: Call) -> Answer:
    ids = each_once(request.tasks)
    for task in ids:
        queue_rows.remove_everywhere(call.db, task)
    reason = {"status_reason": request.status_reason, "status_message": request.status_message}
    return {"archived": sum(_tag(call, task, True, **reason) for task in ids)}


@service.action(ManyTasksRequest, Access.WRITE)
def archive_many(request: ManyTasksRequest, call: Call) -> Answer:
    for task in each_once(request.ids):
        _tag(call, task, True)
    return {"succeeded": [{"id": task, "archived": True} for task in request.ids], "failed": []}


@service.action(ManyTasksRequest, Access.WRITE)
def unarchive_many(request: ManyTasksRequest, call: Call) -> Answer:
    for task in each_once(request.ids):
        _tag(call, task, False)
    return {"succeeded": [{"id": task, "unarchived": True} for task in request.ids], "failed": []}
