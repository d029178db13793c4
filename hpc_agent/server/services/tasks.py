"""``tasks.*``: read, archive and delete tasks."""

from __future__ import annotations

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server import listing
from hpc_agent.server.action import Access, Answer, Call, Ids, Json, RequestBody, Service, unique
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.services.models import drop_models_of
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import event_store, key_store, queue_rows
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import tasks
from hpc_agent.server.store.query import Query
from hpc_agent.wire.error_kinds import TASK_CANNOT_BE_DELETED

service = Service("tasks")

_ARCHIVED = "archived"


class ByIdRequest(RequestBody, frozen=True):
    task: str
    only_fields: list[str] | str = []


class TasksRequest(RequestBody, frozen=True):
    tasks: Ids


class ConfigurationsRequest(TasksRequest, frozen=True):
    names: list[str] | None = None


class NamesRequest(TasksRequest, frozen=True):
    skip_empty: bool = True


@service.action(ByIdRequest, Access.READ)
def get_by_id(request: ByIdRequest, call: Call) -> Answer:
    """One task."""
    only = listing.names_of(request.only_fields)
    columns = [name.partition(".")[0] for name in only if not name.startswith("-")]
    return {"task": listing.project(existing_task(call, request.task, columns), only)}


@service.action(Json, Access.READ)
def get_all(request: Json, call: Call) -> Answer:
    """List tasks."""
    found, paging = listing.find(call.db, tasks, request)
    return {"tasks": found, **paging}


@service.action(TasksRequest, Access.READ)
def get_hyper_params(request: TasksRequest, call: Call) -> Answer:
    """Hyper-parameters of tasks."""
    return {
        "params": [
            {
                "task": task["id"],
                "hyperparams": [
                    {**item, "section": section, "name": name}
                    for section, items in task.get("hyperparams", {}).items()
                    for name, item in items.items()
                ],
            }
            for task in tasks.find(call.db, _of(request.tasks, "hyperparams"))
        ]
    }


@service.action(ConfigurationsRequest, Access.READ)
def get_configurations(request: ConfigurationsRequest, call: Call) -> Answer:
    """Configuration objects of tasks."""
    wanted = None if request.names is None else set(request.names)
    return {
        "configurations": [
            {
                "task": task["id"],
                "configuration": [
                    {**item, "name": name}
                    for name, item in task.get("configuration", {}).items()
                    if wanted is None or name in wanted
                ],
            }
            for task in tasks.find(call.db, _of(request.tasks, "configuration"))
        ]
    }


@service.action(NamesRequest, Access.READ)
def get_configuration_names(request: NamesRequest, call: Call) -> Answer:
    """Names of the configuration objects of tasks."""
    return {
        "configurations": [
            {
                "task": task["id"],
                "names": [
                    name
                    for name, item in task.get("configuration", {}).items()
                    if item.get("value") or not request.skip_empty
                ],
            }
            for task in tasks.find(call.db, _of(request.tasks, "configuration"))
        ]
    }


def _of(ids: list[str], field: str) -> Query:
    return Query((q.one_of(q.field(tasks.table, "id"), ids),), order_by=("id",), fields=(field,))


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
    """Delete a draft or an archived task, with force any task."""
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
    """Archive tasks, and remove them from their queues."""
    ids = unique(request.tasks)
    for task in ids:
        queue_rows.remove_everywhere(call.db, task)
    reason = {"status_reason": request.status_reason, "status_message": request.status_message}
    return {"archived": sum(_tag(call, task, True, **reason) for task in ids)}


@service.action(ManyTasksRequest, Access.WRITE)
def archive_many(request: ManyTasksRequest, call: Call) -> Answer:
    """Archive tasks."""
    for task in unique(request.ids):
        _tag(call, task, True)
    return {"succeeded": [{"id": task, "archived": True} for task in request.ids], "failed": []}


@service.action(ManyTasksRequest, Access.WRITE)
def unarchive_many(request: ManyTasksRequest, call: Call) -> Answer:
    """Bring archived tasks back."""
    for task in unique(request.ids):
        _tag(call, task, False)
    return {"succeeded": [{"id": task, "unarchived": True} for task in request.ids], "failed": []}
