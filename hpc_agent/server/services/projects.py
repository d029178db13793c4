"""Projects: ``a/b/c`` is project ``c`` inside ``a/b``; missing parents are made."""

from __future__ import annotations

import msgspec

from hpc_agent.server import listing
from hpc_agent.server.action import Access, Answer, Call, Json, RequestBody, Service, given
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.services.document_names import valid_name
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Document, new_id, projects
from hpc_agent.server.store.query import Query
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import INVALID_PROJECT_ID, INVALID_PROJECT_NAME, NAME_TAKEN, PROJECT_LOCATION

service = Service("projects")
DEEPEST = 10


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
    return present_project(call, "/".join(parts)) or _insert(call, parts, **fields)


def project_of_move(call: Call, project: str | None, name: str | None) -> str | None:
    """The id of the project that things are moved into; None for the root, which has the name ""."""
    if project:
        return str(existing_project(call, project)["id"])
    if name is None:
        raise invalid("give the project, or its name as project_name")
    return project_named(call, name) if name else None


def _parts(name: str) -> list[str]:
    parts = [part.strip() for part in name.split("/")]
    if not all(parts):
        raise ApiFault(INVALID_PROJECT_NAME, "it is made of non-empty parts between slashes", name=name)
    if len(parts) > DEEPEST:
        raise invalid(f"projects can be nested {DEEPEST} deep at most", name=name)
    return parts


def present_project(call: Call, name: str) -> str | None:
    """The id of the project of exactly this name."""
    named = q.compare(q.field(projects.table, "name"), "=", name)
    found = projects.find(call.db, Query((named,), fields=("name",)))
    return str(found[0]["id"]) if found else None


def _insert(call: Call, parts: list[str], **fields: object) -> str:
    parent = project_named(call, "/".join(parts[:-1])) if len(parts) > 1 else None
    name = valid_name("/".join(parts))
    above = existing_project(call, parent).get("path", []) if parent else []
    project = {
        "id": new_id(),
        "name": name,
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


class _Place(RequestBody, frozen=True):
    shallow_search: bool = False
    parent: list[str | None] | str | None = None


OPTIONS = frozenset({"shallow_search"})
"""Fields of a ``projects.get_all`` that are not filters."""


def within_place(request: Json) -> Json:
    """The request with ``parent`` as ClearML means it: at any depth, unless ``shallow_search`` asks for one level."""
    place = msgspec.convert(request, decodable(_Place), strict=False)
    own = {name: value for name, value in request.items() if name not in ("path", "parent")}
    if place.shallow_search:
        return {**own, "parent": [None] if place.parent is None else place.parent}
    return own if place.parent is None else {**own, "path": place.parent}


@service.action(Json, Access.READ)
def get_all(request: Json, call: Call) -> Answer:
    """List projects."""
    found, paging = listing.find(call.db, projects, within_place(request), options=OPTIONS)
    return {"projects": found, **paging}


@service.action(ProjectRequest, Access.READ)
def get_by_id(request: ProjectRequest, call: Call) -> Answer:
    """One project."""
    return {"project": existing_project(call, request.project)}


@service.action(CreateProjectRequest, Access.WRITE)
def create(request: CreateProjectRequest, call: Call) -> Answer:
    """Create a project."""
    parts = _parts(request.name)
    if present_project(call, "/".join(parts)):
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
        raise ApiFault(PROJECT_LOCATION, "a rename keeps the project in its parent: move it", name=name)
    name = valid_name(name)
    if name != old and present_project(call, name):
        raise ApiFault(NAME_TAKEN, name=name)
    _rename_inside(call, project, name, project.get("path", []))
    return {"name": name, "basename": name.rpartition("/")[2]}


def place_under(call: Call, project: Document, target: Document | None) -> None:
    """Put a project, with those inside it, into another one, or at the top level."""
    path = [*target.get("path", []), target["id"]] if target else []
    name = f"{target['name']}/{project['basename']}" if target else project["basename"]
    _rename_inside(call, project, name, path)
    place = {"name": name, "parent": target and target["id"], "path": path, "last_update": call.time}
    projects.update(call.db, project["id"], place)


def _rename_inside(call: Call, project: Document, name: str, path: list[str]) -> None:
    inside = q.holds(q.field(projects.table, "path"), project["id"])
    for child in projects.find(call.db, Query((inside,), fields=("name", "path"))):
        below = child["path"][child["path"].index(project["id"]) :]
        changed = {"name": name + child["name"].removeprefix(project["name"]), "path": [*path, *below]}
        projects.update(call.db, child["id"], changed)
