"""``projects.get_all_ex``: projects with figures of the tasks in them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import msgspec

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server import filters, joined
from hpc_agent.server.action import Access, Answer, Call, Ids, Json, RequestBody, Service, iso
from hpc_agent.server.listing import HIDDEN
from hpc_agent.server.services.deletion import ARCHIVED
from hpc_agent.server.services.projects import within_place
from hpc_agent.server.services.projects_queries import projects_with_tasks
from hpc_agent.server.store import project_queries
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Document, models, projects, tasks
from hpc_agent.server.store.project_queries import ProjectFigures, in_projects
from hpc_agent.server.store.query import Condition, Query
from hpc_agent.struct_types import decodable

service = Service("projects")

_DATASET = "dataset"

_CHILDREN: dict[str, tuple[str, str]] = {
    "pipeline": ("pipeline", "controller"),
    "report": ("reports", "report"),
    "dataset": ("dataset", "data_processing"),
}
"""System tag and type of the tasks by which a project is one of pipelines, reports or datasets."""


class _Statistics(RequestBody, frozen=True):
    include_stats: bool = False
    stats_with_children: bool = True
    stats_for_state: Literal["active", "archived"] | None = "active"
    """None for both."""
    include_stats_filter: Json | None = None
    include_dataset_stats: bool = False
    check_own_contents: bool = False
    shallow_search: bool = False
    search_hidden: bool = False
    active_users: Ids | None = None
    non_public: bool = False
    children_type: Literal["pipeline", "report", "dataset"] | None = None
    children_tags: list[str | None] | None = None
    children_tags_filter: Json | None = None


_OPTIONS = frozenset(_Statistics.__struct_fields__)


@service.action(Json, Access.READ)
def get_all_ex(request: Json, call: Call) -> Answer:
    """List projects, with figures of their tasks, and what they refer to in place of ids."""
    wanted = msgspec.convert(request, decodable(_Statistics), strict=False)
    place = within_place(request)
    selected: list[str] | None = None
    if wanted.active_users or wanted.children_type:
        selected = projects_with_tasks(call, _of_tasks(wanted, hidden=True))
    extra = [] if selected is None else [q.one_of(q.field(projects.table, "id"), selected)]
    found, paging = joined.find(call.db, projects, place, extra=extra, options=_OPTIONS)
    if wanted.search_hidden:
        for project in found:
            if HIDDEN in _system_tags(call, project):
                project["hidden"] = True
    if wanted.check_own_contents:
        _add_own_contents(call, found, wanted)
    if wanted.include_stats:
        _add_figures(call, found, wanted)
    if wanted.include_dataset_stats:
        for project in found:
            project["dataset_stats"] = project_queries.dataset_size(call.db, project["id"])
    return {"projects": found, **paging}


def _system_tags(call: Call, project: Document) -> list[str]:
    if "system_tags" in project:
        return list(project["system_tags"])
    return list((projects.get(call.db, project["id"], ("system_tags",)) or {}).get("system_tags", []))


def _of_tasks(wanted: _Statistics, *, hidden: bool) -> list[Condition]:
    """The tasks that count."""
    conditions: list[Condition] = []
    if wanted.active_users:
        conditions.append(q.one_of(q.field(tasks.table, "user"), wanted.active_users))
    if wanted.children_type:
        tag, type = _CHILDREN[wanted.children_type]
        conditions.append(q.holds(q.field(tasks.table, "system_tags"), tag))
        conditions.append(q.compare(q.field(tasks.table, "type"), "=", type))
        conditions += filters.conditions(tasks.table, _tags(wanted), frozenset())
    elif not hidden:
        conditions.append(q.negate(q.holds(q.field(tasks.table, "system_tags"), HIDDEN)))
    if wanted.include_stats_filter:
        conditions += filters.conditions(tasks.table, wanted.include_stats_filter, frozenset())
    return conditions


def _tags(wanted: _Statistics) -> Json:
    if wanted.children_tags_filter:
        return {"filters": {"tags": wanted.children_tags_filter}}
    return {"tags": wanted.children_tags} if wanted.children_tags else {}


def _add_own_contents(call: Call, found: list[Document], wanted: _Statistics) -> None:
    ids = [project["id"] for project in found]
    if wanted.children_type == "dataset":
        for project in found:
            directly = q.compare(q.field(projects.table, "parent"), "=", project["id"])
            project["own_datasets"] = projects.count(call.db, Query((directly, _is_dataset())))
        return
    active = [q.negate(q.holds(q.field(c.table, "system_tags"), ARCHIVED)) for c in (tasks, models)]
    of_tasks = [in_projects(tasks, ids), active[0], *_of_tasks(wanted, hidden=wanted.search_hidden)]
    counted = {
        "own_tasks": project_queries.count_by_project(call.db, tasks, of_tasks),
        "own_models": project_queries.count_by_project(call.db, models, [in_projects(models, ids), active[1]]),
    }
    for project in found:
        project |= {name: counts.get(project["id"], 0) for name, counts in counted.items()}


def _is_dataset() -> Condition:
    return q.holds(q.field(projects.table, "system_tags"), _DATASET)


def _datasets(call: Call, project: str) -> Json:
    """The data sets in a project at any depth: how many, and their tags."""
    within = q.holds(q.field(projects.table, "path"), project)
    found = projects.find(call.db, Query((within, _is_dataset()), fields=("tags",)))
    return {"count": len(found), "tags": sorted({tag for dataset in found for tag in dataset.get("tags", [])})}


def _add_figures(call: Call, found: list[Document], wanted: _Statistics) -> None:
    states = [wanted.stats_for_state] if wanted.stats_for_state else ["active", "archived"]
    # Reports are in hidden projects, and they are what such a list is about.
    hidden = wanted.search_hidden or wanted.children_type is not None
    children = {project["id"]: _inside(call, project["id"], hidden=hidden) for project in found}
    ids = {id for project in found for id in (project["id"], *(child["id"] for child in children[project["id"]]))}
    conditions = [in_projects(tasks, sorted(ids)), *_of_tasks(wanted, hidden=wanted.search_hidden)]
    since = iso(call.now - timedelta(hours=24))
    figures = project_queries.task_figures(call.db, conditions, since)
    for project in found:
        inside = [child["id"] for child in children[project["id"]]] if wanted.stats_with_children else []
        project["stats"] = {state: _shown(_sum(figures, [project["id"], *inside], state)) for state in states}
        if wanted.children_type == "dataset":
            project["stats"]["datasets"] = _datasets(call, project["id"])
        project["sub_projects"] = [_named(child) for child in children[project["id"]] if not _is_hidden(child)]


def _is_hidden(project: Document) -> bool:
    return HIDDEN in project.get("system_tags", [])


def _named(project: Document) -> Document:
    return {"id": project["id"], "name": project["name"]}


def _inside(call: Call, project: str, *, hidden: bool) -> list[Document]:
    within = q.holds(q.field(projects.table, "path"), project)
    found = projects.find(call.db, Query((within,), order_by=("name",), fields=("name", "system_tags")))
    return [child for child in found if hidden or not _is_hidden(child)]


def _sum(figures: dict[str, dict[str, ProjectFigures]], ids: list[str], state: str) -> ProjectFigures:
    total = ProjectFigures()
    for id in ids:
        if id in figures and state in figures[id]:
            total.add(figures[id][state])
    return total


def _shown(figures: ProjectFigures) -> dict[str, Any]:
    return {
        "total_tasks": figures.total,
        "total_runtime": figures.runtime_s,
        "completed_tasks": sum(figures.statuses[s] for s in ("completed", "stopped", "closed", "failed", "published")),
        "completed_tasks_24h": figures.completed_lately,
        "running_tasks": figures.statuses["in_progress"],
        "last_task_run": figures.last_run,
        "status_count": {status.value: figures.statuses[status.value] for status in TaskStatus},
    }
