"""Projects: ``a/b/c`` is project ``c`` inside ``a/b``; missing parents are made."""

from __future__ import annotations

from hpc_agent.server import listing
from hpc_agent.server.action import Access, Answer, Call, Json, RequestBody, Service, given
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Document, models, new_id, projects, tasks
from hpc_agent.server.store.query import Query
from hpc_agent.wire.error_kinds import INVALID_PROJECT_ID, NAME_TAKEN, PROJECT_HAS_TASKS

service = Service("projects")
_DEPTH = 10


class ProjectRequest(RequestBody, frozen=True):
    project: str


class CreateProjectRequest(RequestBody, frozen=True):
    name: str
    description: str = ""
    tags: list[str] = []
    system_tags: list[str] = []
    default_output_destination: str | None = None


class UpdateProjectRequest(ProjectRequest, frozen=True):
    name: str | None = None
    description: str | None = None
    tags: list[str] | None = None
    system_tags: list[str] | None = None
    default_output_destination: str | None = None


class DeleteProjectRequest(ProjectRequest, frozen=True):
    force: bool = False


def existing_project(call: Call, project: str) -> Document:
    """
    Raises:
        ApiFault: 400/401.
    """
    found = projects.get(call.db, project)
    if found is None:
        raise ApiFault(INVALID_PROJECT_ID, id=project)
    return found


def project_named(call: Call, name: str, **fields: object) -> str:
    """The id of the project of exactly this name; created, parents first, where missing."""
    parts = _parts(name)
    return _present(call, parts) or _insert(call, parts, **fields)


def _parts(name: str) -> list[str]:
    parts = [part.strip() for part in name.split("/")]
    if not all(parts):
        raise invalid("a project's name is made of non-empty parts between slashes", name=name)
    if len(parts) > _DEPTH:
        raise invalid(f"projects can be nested {_DEPTH} deep at most", name=name)
    return parts


def _present(call: Call, parts: list[str]) -> str | None:
    named = q.compare(q.field(projects.table, "name"), "=", "/".join(parts))
    found = projects.find(call.db, Query((named,), fields=("name",)))
    return str(found[0]["id"]) if found else None


def _insert(call: Call, parts: list[str], **fields: object) -> str:
    parent = project_named(call, "/".join(parts[:-1])) if len(parts) > 1 else None
    above = existing_project(call, parent).get("path", []) if parent else []
    project = {
        "id": new_id(),
        "name": "/".join(parts),
        "basename": parts[-1],
        "parent": parent,
        "path": [*above, parent] if parent else [],
        **call.owner,
        "created": call.time,
        "last_update": call.time,
        "description": "",
        "tags": [],
        "system_tags": [],
        **fields,
    }
    projects.insert(call.db, project)
    return str(project["id"])


@service.action(Json, Access.READ)
def get_all(request: Json, call: Call) -> Answer:
    # ``shallow_search`` looks at the top level only.
    """List projects."""
    extra = [q.is_empty(q.field(projects.table, "parent"))] if request.get("shallow_search") is True else []
    found, paging = listing.find(call.db, projects, request, extra=extra)
    return {"projects": found, **paging}


@service.action(ProjectRequest, Access.READ)
def get_by_id(request: ProjectRequest, call: Call) -> Answer:
    """One project."""
    return {"project": existing_project(call, request.project)}


@service.action(CreateProjectRequest, Access.WRITE)
def create(request: CreateProjectRequest, call: Call) -> Answer:
    """Create a project."""
    parts = _parts(request.name)
    if _present(call, parts):
        raise ApiFault(NAME_TAKEN, name=request.name)
    fields = given(request, ("description", "tags", "system_tags", "default_output_destination"))
    return {"id": _insert(call, parts, **fields)}


@service.action(UpdateProjectRequest, Access.WRITE)
def update(request: UpdateProjectRequest, call: Call) -> Answer:
    """Rename a project, or change its description and tags."""
    project = existing_project(call, request.project)
    changes = given(request, ("description", "tags", "system_tags", "default_output_destination"))
    if request.name is not None:
        changes |= _renamed(call, project, request.name)
    updated = projects.update(call.db, request.project, {**changes, "last_update": call.time})
    return {"updated": updated, "fields": changes}


def _renamed(call: Call, project: Document, name: str) -> Json:
    """A project keeps its place in the tree; those inside it follow the new name."""
    old = project["name"]
    if name.rpartition("/")[0] != old.rpartition("/")[0] or not name.rpartition("/")[2].strip():
        raise invalid("a rename keeps the project in its parent", name=name)
    if name != old and _present(call, _parts(name)):
        raise ApiFault(NAME_TAKEN, name=name)
    inside = q.holds(q.field(projects.table, "path"), project["id"])
    for child in projects.find(call.db, Query((inside,), fields=("name",))):
        projects.update(call.db, child["id"], {"name": name + child["name"].removeprefix(old)})
    return {"name": name, "basename": name.rpartition("/")[2]}


@service.action(DeleteProjectRequest, Access.WRITE)
def delete(request: DeleteProjectRequest, call: Call) -> Answer:
    """Delete a project. Refused while it has tasks; with force they stay, without a project."""
    existing_project(call, request.project)
    within = {
        collection: collection.find(
            call.db,
            Query((q.compare(q.field(collection.table, "project"), "=", request.project),), fields=("project",)),
        )
        for collection in (tasks, models)
    }
    if any(within.values()) and not request.force:
        raise ApiFault(PROJECT_HAS_TASKS, "use force=true", id=request.project)
    for collection, documents in within.items():
        for document in documents:
            collection.update(call.db, document["id"], {"project": None})
    deleted = projects.delete(call.db, request.project)
    return {"deleted": deleted, "disassociated_tasks": len(within[tasks])}
