"""``projects.*``: move, merge and delete projects, with what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_agent.server.action import Access, Answer, Call, Json, Service
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.authorization import owns
from hpc_agent.server.listing import with_subprojects
from hpc_agent.server.roles import OwnerKind
from hpc_agent.server.services.deletion import ARCHIVED, Removed, remove_model, remove_task
from hpc_agent.server.services.pipeline_steps import CONTROLLER
from hpc_agent.server.services.projects import (
    DEEPEST,
    ProjectRequest,
    existing_project,
    place_under,
    present_project,
    project_named,
)
from hpc_agent.server.store import project_queries
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Collection, Document, models, projects, tasks
from hpc_agent.server.store.project_queries import in_projects
from hpc_agent.server.store.query import Condition, Query
from hpc_agent.wire.error_kinds import (
    NAME_TAKEN,
    NO_PERMISSION,
    PROJECT_HAS_DATASETS,
    PROJECT_HAS_MODELS,
    PROJECT_HAS_PIPELINES,
    PROJECT_HAS_TASKS,
    PROJECT_LOCATION,
)

service = Service("projects")

_PIPELINE = "pipeline"
_DATASET = "dataset"
_REPORTS = "reports"


class MoveProjectRequest(ProjectRequest, frozen=True):
    new_location: str = ""
    """Name of the project that it is moved into; empty for the top level."""


class MergeRequest(ProjectRequest, frozen=True, kw_only=True):
    destination_project: str | None = None


class DeleteProjectRequest(ProjectRequest, frozen=True):
    force: bool = False
    delete_contents: bool = False


@service.action(MoveProjectRequest, Access.WRITE)
def move(request: MoveProjectRequest, call: Call) -> Answer:
    """Move a project, with those inside it, into another one."""
    project = existing_project(call, request.project)
    target = existing_project(call, project_named(call, request.new_location)) if request.new_location else None
    if target is not None and request.project in (target["id"], *target.get("path", [])):
        raise ApiFault(PROJECT_LOCATION, "a project cannot be moved into itself", project=request.project)
    return {"moved": _move(call, project, target)}


def _move(call: Call, project: Document, target: Document | None) -> int:
    """How many projects have a new name."""
    name = f"{target['name']}/{project['basename']}" if target else project["basename"]
    if name != project["name"] and present_project(call, name):
        raise ApiFault(NAME_TAKEN, name=name)
    inside = _inside(call, project["id"])
    deepest = max(child["name"].count("/") for child in [project, *inside]) - project["name"].count("/")
    if name.count("/") + deepest >= DEEPEST:
        raise invalid(f"projects can be nested {DEEPEST} deep at most", name=name)
    place_under(call, project, target)
    return 1 + len(inside)


def _inside(call: Call, project: str) -> list[Document]:
    within = q.holds(q.field(projects.table, "path"), project)
    return projects.find(call.db, Query((within,), order_by=("name",)))


@service.action(MergeRequest, Access.WRITE)
def merge(request: MergeRequest, call: Call) -> Answer:
    """Move all that is in a project into another one, and delete the first."""
    source = existing_project(call, request.project)
    target = existing_project(call, request.destination_project) if request.destination_project else None
    if target is not None and request.project in (target["id"], *target.get("path", [])):
        raise ApiFault(PROJECT_LOCATION, "a project cannot be merged into itself", project=request.project)
    moved = 0
    for collection, _ in _contents(call, [request.project]):
        for document in collection.find(call.db, Query((in_projects(collection, [request.project]),), fields=("id",))):
            moved += collection.update(call.db, document["id"], {"project": target and target["id"]})
    children = [child for child in _inside(call, request.project) if child.get("parent") == request.project]
    moved_projects = sum(_move(call, child, target) for child in children)
    projects.delete(call.db, source["id"])
    return {"moved_entities": moved, "moved_projects": moved_projects}


def _contents(call: Call, ids: Sequence[str]) -> list[tuple[Collection, Condition]]:
    return [(collection, in_projects(collection, ids)) for collection in (tasks, models)]


def _not_archived(collection: Collection) -> Condition:
    return q.negate(q.holds(q.field(collection.table, "system_tags"), ARCHIVED))


@dataclass(frozen=True)
class _Inside:
    """The projects in a project, itself among them, by what they are for; those of reports are ``regular``."""

    regular: list[str]
    pipelines: list[str]
    datasets: list[str]


def _by_use(call: Call, ids: Sequence[str]) -> _Inside:
    kinds: dict[str, list[str]] = {_PIPELINE: [], _DATASET: []}
    one_of = q.one_of(q.field(projects.table, "id"), ids)
    for project in projects.find(call.db, Query((one_of,), fields=("basename", "system_tags"))):
        for kind, of_kind in kinds.items():
            if kind in project.get("system_tags", []) and project["basename"] != f".{kind}s":
                of_kind.append(project["id"])
    special = {id for of_kind in kinds.values() for id in of_kind}
    return _Inside([id for id in ids if id not in special], kinds[_PIPELINE], kinds[_DATASET])


def _runs(ids: Sequence[str]) -> list[Condition]:
    is_run = q.compare(q.field(tasks.table, "type"), "=", CONTROLLER)
    return [in_projects(tasks, ids), is_run, _not_archived(tasks)]


def _versions(ids: Sequence[str]) -> list[Condition]:
    return [in_projects(tasks, ids), _not_archived(tasks)]


@service.action(ProjectRequest, Access.READ)
def validate_delete(request: ProjectRequest, call: Call) -> Answer:
    """How much is in a project and those inside it, and how much of that is not archived."""
    existing_project(call, request.project)
    inside = _by_use(call, with_subprojects(call.db, request.project))
    counts: Json = {
        "pipelines": len(project_queries.count_by_project(call.db, tasks, _runs(inside.pipelines))),
        "datasets": len(project_queries.count_by_project(call.db, tasks, _versions(inside.datasets))),
    }
    is_report = q.holds(q.field(tasks.table, "system_tags"), _REPORTS)
    for name, collection, conditions in (
        ("tasks", tasks, [q.negate(is_report)]),
        ("models", models, []),
        ("reports", tasks, [is_report]),
    ):
        of_kind = (in_projects(collection, inside.regular), *conditions)
        counts[name] = collection.count(call.db, Query(of_kind))
        counts[f"non_archived_{name}"] = collection.count(call.db, Query((*of_kind, _not_archived(collection))))
    return counts


def _refuse_full(call: Call, project: str, ids: Sequence[str]) -> None:
    """
    Raises:
        ApiFault: 400/402, 405, 406 or 413, something in these projects is not archived.
    """
    inside = _by_use(call, ids)
    for collection, conditions, kind, advice in (
        (tasks, _runs(inside.pipelines), PROJECT_HAS_PIPELINES, "archive their runs"),
        (tasks, _versions(inside.datasets), PROJECT_HAS_DATASETS, "delete their versions"),
        (tasks, [in_projects(tasks, inside.regular), _not_archived(tasks)], PROJECT_HAS_TASKS, ""),
        (models, [in_projects(models, inside.regular), _not_archived(models)], PROJECT_HAS_MODELS, ""),
    ):
        if collection.count(call.db, Query(tuple(conditions))):
            raise ApiFault(kind, f"{advice} or use force=true" if advice else "use force=true", id=project)


@service.action(DeleteProjectRequest, Access.WRITE)
def delete(request: DeleteProjectRequest, call: Call) -> Answer:
    """Delete a project and those inside it. Refused while it has tasks or models that are not archived, without force.

    With ``delete_contents`` these go along; otherwise they stay, without a project.
    """
    existing_project(call, request.project)
    ids = with_subprojects(call.db, request.project)
    if not request.force:
        _refuse_full(call, request.project, ids)
    if foreign := next((id for id in ids if not owns(call, OwnerKind.PROJECT, id)), None):
        raise ApiFault(NO_PERMISSION, "a project inside it is another user's", project=foreign)
    answer = _delete_contents(call, ids) if request.delete_contents else _leave_contents(call, ids)
    return {**answer, "deleted": sum(projects.delete(call.db, id) for id in ids)}


def _leave_contents(call: Call, ids: Sequence[str]) -> Answer:
    changed = {}
    for collection, inside in _contents(call, ids):
        documents = collection.find(call.db, Query((inside,), fields=("id",)))
        changed[collection] = sum(collection.update(call.db, d["id"], {"project": None}) for d in documents)
    return {"disassociated_tasks": changed[tasks], "deleted_tasks": 0, "deleted_models": 0}


def _delete_contents(call: Call, ids: Sequence[str]) -> Answer:
    removed = Removed()
    deleted = {}
    for collection, kind in ((models, OwnerKind.MODEL), (tasks, OwnerKind.TASK)):
        columns = ("uri", "task") if collection is models else ("status", "models", "execution")
        documents = collection.find(call.db, Query((in_projects(collection, ids),), fields=columns))
        for document in documents:
            if not owns(call, kind, document["id"]):
                raise ApiFault(NO_PERMISSION, f"the project has a {kind.value} of another user", id=document["id"])
            if collection is models:
                removed.model_urls |= {document["uri"]} if document.get("uri") else set()
                remove_model(call, document, force=True, removed=removed)
            else:
                removed.add(remove_task(call, document, force=True))
        deleted[collection] = len(documents)
    counts = {"disassociated_tasks": 0, "deleted_tasks": deleted[tasks], "deleted_models": deleted[models]}
    return {**counts, "urls": removed.urls}
