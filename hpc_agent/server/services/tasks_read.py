"""Reading tasks."""

from __future__ import annotations

from hpc_agent.server import listing
from hpc_agent.server.action import Answer, Call, Ids, Json, RequestBody, Service
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import tasks
from hpc_agent.server.store.query import Query

service = Service("tasks")


class ByIdRequest(RequestBody, frozen=True):
    task: str
    only_fields: list[str] | str = []


class TasksRequest(RequestBody, frozen=True):
    tasks: Ids


class ConfigurationsRequest(TasksRequest, frozen=True):
    names: list[str] | None = None


class NamesRequest(TasksRequest, frozen=True):
    skip_empty: bool = True


@service.action(ByIdRequest)
def get_by_id(request: ByIdRequest, call: Call) -> Answer:
    only = listing.names_of(request.only_fields)
    columns = [name.partition(".")[0] for name in only if not name.startswith("-")]
    return {"task": listing.project(existing_task(call, request.task, columns), only)}


@service.action(Json)
def get_all(request: Json, call: Call) -> Answer:
    found, beside = listing.find(call.db, tasks, request)
    return {"tasks": found, **beside}


@service.action(TasksRequest)
def get_hyper_params(request: TasksRequest, call: Call) -> Answer:
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


@service.action(ConfigurationsRequest)
def get_configurations(request: ConfigurationsRequest, call: Call) -> Answer:
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


@service.action(NamesRequest)
def get_configuration_names(request: NamesRequest, call: Call) -> Answer:
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
