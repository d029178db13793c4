"""Models: what tasks read and make. The files themselves are elsewhere (``uri``)."""

from __future__ import annotations

from typing import Any

from hpc_agent.server import listing
from hpc_agent.server.action import (
    Access,
    Answer,
    Call,
    Ids,
    Int64,
    Json,
    RequestBody,
    Service,
    Transaction,
    given,
    unique,
)
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.authorization import owns
from hpc_agent.server.roles import OwnerKind
from hpc_agent.server.services.projects import existing_project
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Document, models, new_id, tasks
from hpc_agent.server.store.query import Query
from hpc_agent.wire.error_kinds import INVALID_MODEL_ID, MODEL_IN_USE

service = Service("models")
_ARCHIVED = "archived"


class ModelRequest(RequestBody, frozen=True):
    model: str


class ModelContent(RequestBody, frozen=True):
    name: str | None = None
    uri: str | None = None
    comment: str | None = None
    tags: list[str] | None = None
    system_tags: list[str] | None = None
    framework: str | None = None
    design: Json | None = None
    labels: Json | None = None
    ready: bool | None = None
    project: str | None = None
    parent: str | None = None
    task: str | None = None
    iteration: Int64 | None = None
    metadata: list[Json] | Json | None = None


class CreateModelRequest(ModelContent, frozen=True):
    name: str
    uri: str


class EditModelRequest(ModelContent, frozen=True, kw_only=True):
    model: str


class UpdateForTaskRequest(RequestBody, frozen=True):
    task: str
    name: str | None = None
    uri: str | None = None
    comment: str | None = None
    tags: list[str] | None = None
    system_tags: list[str] | None = None
    override_model_id: str | None = None
    iteration: Int64 | None = None


class MetadataRequest(ModelRequest, frozen=True):
    metadata: list[Json]
    replace_metadata: bool = False


class DeleteMetadataRequest(ModelRequest, frozen=True):
    keys: list[str]


class DeleteModelRequest(ModelRequest, frozen=True):
    force: bool = False


class ManyModelsRequest(RequestBody, frozen=True):
    ids: Ids


_FIELDS = {
    name: name
    for name in (
        "name",
        "uri",
        "comment",
        "tags",
        "system_tags",
        "framework",
        "design",
        "labels",
        "ready",
        "project",
        "parent",
        "task",
        "metadata",
    )
} | {"iteration": "last_iteration"}


def existing_model(call: Call, model: str) -> Document:
    """
    Raises:
        ApiFault: 400/201.
    """
    found = models.get(call.db, model)
    if found is None:
        raise ApiFault(INVALID_MODEL_ID, id=model)
    return found


def _content(request: ModelContent, call: Call) -> dict[str, Any]:
    if request.project:
        existing_project(call, request.project)
    if request.task:
        existing_task(call, request.task, ("status",))
    changes = given(request, _FIELDS)
    if "metadata" in changes:
        changes["metadata"] = _by_key(changes["metadata"])
    return changes


def _by_key(metadata: list[Json] | Json) -> Json:
    """Clients send a list or an object and read an object."""
    if isinstance(metadata, dict):
        return metadata
    return {str(item["key"]): item for item in metadata if "key" in item}


def _insert(call: Call, **fields: Any) -> str:
    model = {
        "id": new_id(),
        **call.owner,
        "created": call.time,
        "last_update": call.time,
        "ready": True,
        "comment": "",
        "tags": [],
        "system_tags": [],
        "labels": {},
        "design": {},
        "metadata": {},
        **fields,
    }
    models.insert(call.db, model)
    return str(model["id"])


@service.action(Json, Access.READ)
def get_all(request: Json, call: Call) -> Answer:
    """List models."""
    found, paging = listing.find(call.db, models, request)
    return {"models": found, **paging}


@service.action(ModelRequest, Access.READ)
def get_by_id(request: ModelRequest, call: Call) -> Answer:
    """One model."""
    return {"model": existing_model(call, request.model)}


@service.action(CreateModelRequest, Access.WRITE)
def create(request: CreateModelRequest, call: Call) -> Answer:
    """Create a model."""
    return {"id": _insert(call, **_content(request, call)), "created": True}


@service.action(EditModelRequest, Access.WRITE)
def edit(request: EditModelRequest, call: Call) -> Answer:
    """Change fields of a model."""
    return _change(call, request.model, _content(request, call))


@service.action(EditModelRequest, Access.WRITE)
def update(request: EditModelRequest, call: Call) -> Answer:
    """The same as ``models.edit``."""
    return _change(call, request.model, _content(request, call))


def _change(call: Call, model: str, changes: dict[str, Any]) -> Answer:
    existing_model(call, model)
    return {"updated": models.update(call.db, model, {**changes, "last_update": call.time}), "fields": changes}


@service.action(UpdateForTaskRequest, Access.WRITE)
def update_for_task(request: UpdateForTaskRequest, call: Call) -> Answer:
    """Set the URL of the task's last output model, or create a new one."""
    task = existing_task(call, request.task, ("models", "name", "project"))
    if request.override_model_id:
        existing_model(call, request.override_model_id)
        return {"id": request.override_model_id, "created": False}
    changes = given(request, {n: _FIELDS[n] for n in ("name", "uri", "comment", "tags", "system_tags", "iteration")})
    outputs = task.get("models", {}).get("output") or []
    identifier = str(outputs[-1].get("model")) if outputs else ""
    # A task may name any model among its outputs; the owner is a field of the model.
    if models.get(call.db, identifier, ("name",)) and owns(call, OwnerKind.MODEL, identifier):
        return {**_change(call, identifier, changes), "id": identifier, "created": False}
    fields = {"name": task["name"], "project": task.get("project"), "task": request.task, **changes}
    identifier = _insert(call, **fields)
    reference = {"model": identifier, "name": fields["name"]}
    sides = {"input": task.get("models", {}).get("input") or [], "output": [reference]}
    tasks.update(call.db, request.task, {"models": sides, "last_update": call.time})
    return {"id": identifier, "created": True, "updated": 1, "fields": changes}


@service.action(ModelRequest, Access.WRITE)
def set_ready(request: ModelRequest, call: Call) -> Answer:
    """Mark a model as ready (published)."""
    return {"updated": _change(call, request.model, {"ready": True})["updated"]}


@service.action(MetadataRequest, Access.WRITE)
def add_or_update_metadata(request: MetadataRequest, call: Call) -> Answer:
    """Merge metadata of a model."""
    kept = {} if request.replace_metadata else existing_model(call, request.model).get("metadata", {})
    return {"updated": _change(call, request.model, {"metadata": {**kept, **_by_key(request.metadata)}})["updated"]}


@service.action(DeleteMetadataRequest, Access.WRITE)
def delete_metadata(request: DeleteMetadataRequest, call: Call) -> Answer:
    """Delete metadata of a model."""
    present = existing_model(call, request.model).get("metadata", {})
    gone = set(request.keys)
    kept = {key: item for key, item in present.items() if key not in gone}
    return {"updated": _change(call, request.model, {"metadata": kept})["updated"]}


@service.action(DeleteModelRequest, Access.WRITE)
def delete(request: DeleteModelRequest, call: Call) -> Answer:
    """Delete a model; refused while a task uses it, without force."""
    model = existing_model(call, request.model)
    if not request.force and in_use(call, request.model):
        raise ApiFault(MODEL_IN_USE, "use force=true", id=request.model)
    return {"deleted": bool(models.delete(call.db, request.model)), "url": model.get("uri")}


def _tag(call: Call, model: str, archived: bool) -> None:
    kept = [tag for tag in existing_model(call, model).get("system_tags", []) if tag != _ARCHIVED]
    _change(call, model, {"system_tags": [*kept, _ARCHIVED] if archived else kept})


@service.action(ManyModelsRequest, Access.WRITE)
def archive_many(request: ManyModelsRequest, call: Call) -> Answer:
    """Archive models."""
    for model in unique(request.ids):
        _tag(call, model, True)
    return {"succeeded": [{"id": model, "archived": True} for model in request.ids], "failed": []}


@service.action(ManyModelsRequest, Access.WRITE)
def unarchive_many(request: ManyModelsRequest, call: Call) -> Answer:
    """Bring archived models back."""
    for model in unique(request.ids):
        _tag(call, model, False)
    return {"succeeded": [{"id": model, "unarchived": True} for model in request.ids], "failed": []}


def in_use(at: Transaction, model: str, *, other_than: str = "") -> bool:
    """Whether a task other than ``other_than`` names the model among its inputs or outputs."""
    if not model.isalnum():
        return False
    names_it = q.matches(q.field(tasks.table, "models"), f'"{model}"')
    another = q.negate(q.compare(q.field(tasks.table, "id"), "=", other_than))
    return bool(tasks.find(at.db, Query((names_it, another), fields=("name",), limit=1)))


def drop_models_of(at: Transaction, task: str) -> int:
    """Delete the records of the models that ``task`` made and no other task uses; returns how many."""
    made = models.find(at.db, Query((q.compare(q.field(models.table, "task"), "=", task),), fields=("name",)))
    return sum(models.delete(at.db, model["id"]) for model in made if not in_use(at, model["id"], other_than=task))
