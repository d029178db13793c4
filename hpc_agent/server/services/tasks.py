"""``tasks.*``: read tasks."""

from __future__ import annotations

from hpc_agent.server import joined, listing
from hpc_agent.server.action import Access, Answer, Call, Ids, Json, RequestBody, Service
from hpc_agent.server.api_fault import invalid
from hpc_agent.server.listing import with_subprojects
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import project_queries
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import tasks
from hpc_agent.server.store.project_queries import in_projects
from hpc_agent.server.store.query import Query

service = Service("tasks")

OPTIONS = frozenset({"task_types", "input"})
"""Fields that the SDK sends with a ``tasks.get_all`` and the reference server ignores."""


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
    only = listing.known_names(tasks.table, request.only_fields)
    columns = [name.partition(".")[0] for name in only if not name.startswith("-")]
    return {"task": listing.project(existing_task(call, request.task, columns), only)}


@service.action(Json, Access.READ)
def get_all(request: Json, call: Call) -> Answer:
    """List tasks."""
    found, paging = listing.find(call.db, tasks, request, options=OPTIONS)
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
                    for section, items in sorted(task.get("hyperparams", {}).items())
                    for name, item in sorted(items.items())
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
                    for name, item in sorted(task.get("configuration", {}).items())
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
                    for name, item in sorted(task.get("configuration", {}).items())
                    if item.get("value") or not request.skip_empty
                ],
            }
            for task in tasks.find(call.db, _of(request.tasks, "configuration"))
        ]
    }


def _of(ids: list[str], field: str) -> Query:
    return Query((q.one_of(q.field(tasks.table, "id"), ids),), order_by=("id",), fields=(field,))


class TypesRequest(RequestBody, frozen=True):
    projects: Ids | None = None


@service.action(Json, Access.READ)
def get_all_ex(request: Json, call: Call) -> Answer:
    """List tasks, with what they refer to in place of ids."""
    found, paging = joined.find(call.db, tasks, request, options=OPTIONS)
    return {"tasks": found, **paging}


@service.action(Json, Access.READ)
def get_by_id_ex(request: Json, call: Call) -> Answer:
    """Tasks by their ids, with what they refer to in place of ids."""
    if not request.get("id"):
        raise invalid("give the ids as id")
    found, _ = joined.find(call.db, tasks, request, options=OPTIONS)
    return {"tasks": found}


@service.action(TypesRequest, Access.READ)
def get_types(request: TypesRequest, call: Call) -> Answer:
    """Types of the tasks in projects and those inside them; in all where none are given."""
    projects = with_subprojects(call.db, request.projects) if request.projects else None
    return {"types": project_queries.distinct(call.db, tasks, "type", [in_projects(tasks, projects)])}
