"""Tasks out of sight, and out of existence."""

from __future__ import annotations

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, Ids, Request, Service, each_once
from hpc_agent.server.fault import Fault
from hpc_agent.server.services.outputs import drop_models_of
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import credentials, entries, events
from hpc_agent.server.store.documents import tasks
from hpc_agent.wire.errors import TASK_CANNOT_BE_DELETED

service = Service("tasks")

_ARCHIVED = "archived"


class DeleteRequest(Request, frozen=True):
    task: str
    force: bool = False
    delete_output_models: bool = True


class ArchiveRequest(Request, frozen=True):
    tasks: Ids
    status_reason: str = ""
    status_message: str = ""


class ManyRequest(Request, frozen=True):
    ids: Ids


@service.action(DeleteRequest, Access.WRITE)
def delete(request: DeleteRequest, call: Call) -> Answer:
    task = existing_task(call, request.task, ("status", "system_tags"))
    if not request.force and task["status"] != TaskStatus.CREATED.value and _ARCHIVED not in task["system_tags"]:
        raise Fault(TASK_CANNOT_BE_DELETED, "due to its status, use force=true", task=task["id"], status=task["status"])
    deleted_models = drop_models_of(call, request.task) if request.delete_output_models else 0
    entries.remove_everywhere(call.db, request.task)
    events.delete_for_task(call.db, request.task)
    credentials.end_with_task(call.db, request.task, call.time)
    return {"deleted": bool(tasks.delete(call.db, request.task)), "deleted_models": deleted_models}


def _tag(call: Call, task: str, archived: bool, **also: str) -> int:
    found = existing_task(call, task, ("system_tags",))
    tags = [tag for tag in found["system_tags"] if tag != _ARCHIVED] + ([_ARCHIVED] if archived else [])
    return tasks.update(call.db, task, {"system_tags": tags, "last_change": call.time, **also})


@service.action(ArchiveRequest, Access.WRITE)
def archive(request: ArchiveRequest, call: Call) -> Answer:
    ids = each_once(request.tasks)
    for task in ids:
        entries.remove_everywhere(call.db, task)
    reason = {"status_reason": request.status_reason, "status_message": request.status_message}
    return {"archived": sum(_tag(call, task, True, **reason) for task in ids)}


@service.action(ManyRequest, Access.WRITE)
def archive_many(request: ManyRequest, call: Call) -> Answer:
    for task in each_once(request.ids):
        _tag(call, task, True)
    return {"succeeded": [{"id": task, "archived": True} for task in request.ids], "failed": []}


@service.action(ManyRequest, Access.WRITE)
def unarchive_many(request: ManyRequest, call: Call) -> Answer:
    for task in each_once(request.ids):
        _tag(call, task, False)
    return {"succeeded": [{"id": task, "unarchived": True} for task in request.ids], "failed": []}
