"""``projects.*`` and ``organization.*``: values that the tasks and models of projects have, to choose filters from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import msgspec

from hpc_agent.server import filters, joined, listing
from hpc_agent.server.action import Access, Answer, Call, Ids, Json, RequestBody, Service
from hpc_agent.server.listing import HIDDEN, with_subprojects
from hpc_agent.server.services.deletion import ARCHIVED
from hpc_agent.server.store import project_queries
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Collection, models, projects, tasks, users
from hpc_agent.server.store.project_queries import in_projects
from hpc_agent.server.store.query import Condition, Query

service = Service("projects")
organization = Service("organization")
services = (service, organization)

_MOST_VALUES = 10_000
T = TypeVar("T")
Page = Annotated[int, msgspec.Meta(ge=0, le=10**6)]
PageSize = Annotated[int, msgspec.Meta(ge=1, le=_MOST_VALUES)]


class TagsFilter(RequestBody, frozen=True):
    tags: list[str | None] | None = None
    system_tags: list[str | None] | None = None


class TagsRequest(RequestBody, frozen=True):
    include_system: bool = False
    filter: TagsFilter = TagsFilter()


class ProjectTagsRequest(TagsRequest, frozen=True):
    projects: Ids | None = None


class _NamesRequest(RequestBody, frozen=True):
    project: str | None = None
    include_subprojects: bool = True
    page: Page = 0
    page_size: PageSize = 500


class MetricsRequest(RequestBody, frozen=True):
    project: str | None = None
    include_subprojects: bool = True
    model_metrics: bool = False
    ids: Ids | None = None


class _ValuesRequest(RequestBody, frozen=True, kw_only=True):
    projects: Ids | None = None
    include_subprojects: bool = True
    page: Page = 0
    page_size: PageSize = 500


class ParameterValuesRequest(_ValuesRequest, frozen=True, kw_only=True):
    section: str
    name: str
    pattern: str | None = None


class MetadataValuesRequest(_ValuesRequest, frozen=True, kw_only=True):
    key: str


class ParentsRequest(RequestBody, frozen=True):
    projects: Ids | None = None
    tasks_state: Literal["active", "archived"] | None = None
    include_subprojects: bool = True
    task_name: str | None = None


class UserNamesRequest(RequestBody, frozen=True):
    projects: Ids | None = None
    include_subprojects: bool = True
    entity: Literal["task", "model"] = "task"


def _within(call: Call, collection: Collection, ids: Sequence[str] | None, *, inside: bool = True) -> Condition:
    """Documents of the projects and, with ``inside``, of those inside them.

    Where none are given: all, without ``inside`` those of no project.
    """
    if not ids:
        outside = q.is_empty(q.field(collection.table, "project"))
        return in_projects(collection, None) if inside else outside
    return in_projects(collection, with_subprojects(call.db, list(ids)) if inside else list(ids))


def tags_of(call: Call, collection: Collection, conditions: Sequence[Condition], request: TagsRequest) -> Answer:
    """Tags of the documents that match, and their system tags if asked for."""
    wanted = {name: getattr(request.filter, name) for name in ("tags", "system_tags")}
    given = {name: value for name, value in wanted.items() if value is not None}
    where = [*conditions, *filters.conditions(collection.table, given, frozenset())]
    columns = ("tags", "system_tags") if request.include_system else ("tags",)
    return {name: project_queries.distinct_elements(call.db, collection, name, where) for name in columns}


@service.action(ProjectTagsRequest, Access.READ)
def get_task_tags(request: ProjectTagsRequest, call: Call) -> Answer:
    """Tags of the tasks in projects."""
    return tags_of(call, tasks, [_within(call, tasks, request.projects)], request)


@service.action(ProjectTagsRequest, Access.READ)
def get_model_tags(request: ProjectTagsRequest, call: Call) -> Answer:
    """Tags of the models in projects."""
    return tags_of(call, models, [_within(call, models, request.projects)], request)


@service.action(ProjectTagsRequest, Access.READ)
def get_project_tags(request: ProjectTagsRequest, call: Call) -> Answer:
    """Tags of projects."""
    of = [] if request.projects is None else [q.one_of(q.field(projects.table, "id"), request.projects)]
    return tags_of(call, projects, of, request)


@service.action(_NamesRequest, Access.READ)
def get_hyper_parameters(request: _NamesRequest, call: Call) -> Answer:
    """Sections and names of the parameters of the tasks in a project."""
    where = [_of_project(call, tasks, request)]
    found = project_queries.parameter_names(call.db, where, _MOST_VALUES)
    page, remaining = _page(found, request)
    parameters = [{"section": section, "name": name} for section, name in page]
    return {"total": len(found), "remaining": remaining, "parameters": parameters}


@service.action(_NamesRequest, Access.READ)
def get_model_metadata_keys(request: _NamesRequest, call: Call) -> Answer:
    """Keys of the metadata of the models in a project."""
    where = [_of_project(call, models, request)]
    found = project_queries.keys(call.db, models, "metadata", where, _MOST_VALUES)
    page, remaining = _page(found, request)
    return {"total": len(found), "remaining": remaining, "keys": page}


def _of_project(call: Call, collection: Collection, request: _NamesRequest) -> Condition:
    ids = [request.project] if request.project else None
    return _within(call, collection, ids, inside=request.include_subprojects)


def _page(found: Sequence[T], request: _NamesRequest | _ValuesRequest) -> tuple[Sequence[T], int]:
    """One page of what was found, and how much comes behind it."""
    start = request.page * request.page_size
    page = found[start : start + request.page_size]
    return page, max(0, len(found) - start - len(page))


@service.action(ParameterValuesRequest, Access.READ)
def get_hyperparam_values(request: ParameterValuesRequest, call: Call) -> Answer:
    """Values that a parameter has in the tasks of projects."""
    section, name = (part.replace(".", "%2E") for part in (request.section, request.name))
    path = f"hyperparams.{section}.{name}.value"
    filters.field_of(tasks.table, path)
    where = [_within(call, tasks, request.projects, inside=request.include_subprojects)]
    if request.pattern:
        where.append(filters.match(tasks.table, path, request.pattern))
    found = project_queries.distinct(call.db, tasks, path, where)
    return {"total": len(found), "values": _page(found, request)[0]}


@service.action(MetadataValuesRequest, Access.READ)
def get_model_metadata_values(request: MetadataValuesRequest, call: Call) -> Answer:
    """Values that a key of the metadata has in the models of projects."""
    key = request.key.replace(".", "%2E")
    path = f"metadata.{key}.value"
    filters.field_of(models.table, path)
    where = [_within(call, models, request.projects, inside=request.include_subprojects)]
    found = project_queries.distinct(call.db, models, path, where)
    return {"total": len(found), "values": _page(found, request)[0]}


@service.action(MetricsRequest, Access.READ)
def get_unique_metric_variants(request: MetricsRequest, call: Call) -> Answer:
    """Metrics and variants that the tasks in a project have reported; models have none here."""
    if request.model_metrics:
        return {"metrics": []}
    ids = [request.project] if request.project else None
    where = [_within(call, tasks, ids, inside=request.include_subprojects)]
    if request.ids:
        where.append(q.one_of(q.field(tasks.table, "id"), request.ids))
    names = ("metric", "metric_hash", "variant", "variant_hash")
    found = project_queries.metric_names(call.db, tasks, where, _MOST_VALUES)
    return {"metrics": [dict(zip(names, row, strict=True)) for row in found]}


@service.action(ParentsRequest, Access.READ)
def get_task_parents(request: ParentsRequest, call: Call) -> Answer:
    """Tasks that are parents of the tasks in projects."""
    where = [_within(call, tasks, request.projects, inside=request.include_subprojects)]
    if request.tasks_state:
        archived = q.holds(q.field(tasks.table, "system_tags"), ARCHIVED)
        where.append(archived if request.tasks_state == "archived" else q.negate(archived))
    ids = project_queries.distinct(call.db, tasks, "parent", where)
    conditions = [q.one_of(q.field(tasks.table, "id"), ids)]
    if request.task_name:
        conditions.append(filters.match(tasks.table, "name", request.task_name))
    found = tasks.find(call.db, Query(tuple(conditions), order_by=("name",), fields=("name", "project")))
    return {"parents": joined.expand(call.db, tasks, found, ["project.name"])}


@service.action(UserNamesRequest, Access.READ)
def get_user_names(request: UserNamesRequest, call: Call) -> Answer:
    """Users who have tasks or models in projects."""
    collection = models if request.entity == "model" else tasks
    where = [_within(call, collection, request.projects, inside=request.include_subprojects)]
    ids = project_queries.distinct(call.db, collection, "user", where)
    one_of = q.one_of(q.field(users.table, "id"), ids)
    return {"users": users.find(call.db, Query((one_of,), order_by=("name",), fields=("name",)))}


@organization.action(TagsRequest, Access.READ)
def get_tags(request: TagsRequest, call: Call) -> Answer:
    """Tags of all tasks and models."""
    found = [tags_of(call, collection, [], request) for collection in (tasks, models)]
    return {name: sorted({tag for answer in found for tag in answer[name]}) for name in found[0]}


@organization.action(RequestBody, Access.READ)
def get_user_companies(request: RequestBody, call: Call) -> Answer:
    """The one company of this server, with its users."""
    found = users.find(call.db, Query(order_by=("name",), fields=("name",)))
    owners = [{**user, "avatar": None} for user in found]
    own = {"id": call.identity.company, "name": call.identity.company_name}
    return {"companies": [{**own, "allocated": len(owners), "owners": owners}]}


class CountsRequest(RequestBody, frozen=True):
    projects: Json | None = None
    tasks: Json | None = None
    models: Json | None = None
    pipelines: Json | None = None
    pipeline_runs: Json | None = None
    datasets: Json | None = None
    dataset_versions: Json | None = None
    reports: Json | None = None
    active_users: Ids | None = None
    search_hidden: bool = False
    allow_public: bool = True
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Count no further."""


_COUNTED: dict[str, tuple[Collection, str | None]] = {
    "projects": (projects, None),
    "tasks": (tasks, None),
    "models": (models, None),
    "pipelines": (projects, None),
    "pipeline_runs": (tasks, "controller"),
    "datasets": (projects, None),
    "dataset_versions": (tasks, "data_processing"),
    "reports": (tasks, "report"),
}


@organization.action(CountsRequest, Access.READ)
def get_entities_count(request: CountsRequest, call: Call) -> Answer:
    """How many projects, tasks, models … each of the given filters finds."""
    return {name: _count(call, request, name) for name in _COUNTED if getattr(request, name) is not None}


def _count(call: Call, request: CountsRequest, name: str) -> int:
    collection, type = _COUNTED[name]
    wanted = dict(getattr(request, name))
    if type is not None:
        wanted |= {"type": type, "include_subprojects": True}
    extra: list[Condition] = []
    if request.active_users and collection is projects:
        active = q.one_of(q.field(tasks.table, "user"), request.active_users)
        extra.append(q.one_of(q.field(projects.table, "id"), projects_with_tasks(call, [active])))
    elif request.active_users and not wanted.get("user"):
        wanted["user"] = request.active_users
    shows_hidden = request.search_hidden or name not in ("projects", "tasks")
    hidden = "" if shows_hidden else HIDDEN
    conditions = (*extra, *listing.matching(call.db, collection, wanted, hidden=hidden))
    found = collection.count(call.db, Query(conditions))
    return min(found, request.limit or found)


def projects_with_tasks(call: Call, conditions: Sequence[Condition]) -> list[str]:
    """The projects that have such tasks, and all those that these are in."""
    own = project_queries.count_by_project(call.db, tasks, conditions)
    one_of = q.one_of(q.field(projects.table, "id"), list(own))
    found = projects.find(call.db, Query((one_of,), fields=("path",)))
    return list({id for project in found for id in (project["id"], *project.get("path", []))})
