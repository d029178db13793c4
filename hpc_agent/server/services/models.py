"""Models: what tasks read and make. The files themselves are elsewhere (``uri``)."""

from __future__ import annotations

from typing import Any

import msgspec

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server import joined, listing
from hpc_agent.server.action import (
    Access,
    Answer,
    Call,
    Ids,
    Int64,
    Json,
    RequestBody,
    Service,
    given,
)
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.authorization import owns
from hpc_agent.server.listing import with_subprojects
from hpc_agent.server.roles import OwnerKind
from hpc_agent.server.services.document_names import valid_name
from hpc_agent.server.services.metadata import metadata_by_key
from hpc_agent.server.services.projects import existing_project
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import project_queries
from hpc_agent.server.store.documents import Document, models, new_id, tasks
from hpc_agent.server.store.project_queries import in_projects
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import INVALID_MODEL_ID, INVALID_TASK_STATUS, MISSING_FIELDS

service = Service("models")

_MAKES_MODELS = frozenset({TaskStatus.CREATED.value, TaskStatus.IN_PROGRESS.value})
_OUTPUT_MODEL = "Output Model"


class ModelRequest(RequestBody, frozen=True):
    model: str


class OutputOfTaskRequest(RequestBody, frozen=True):
    task: str


class FrameworksRequest(RequestBody, frozen=True):
    projects: Ids | None = None


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
    if "name" in changes:
        changes["name"] = valid_name(changes["name"])
    if "metadata" in changes:
        changes["metadata"] = metadata_by_key(changes["metadata"])
    return changes


def _insert(call: Call, **fields: Any) -> str:
    model = {
        "id": new_id(),
        **call.owner,
        "created": call.time,
        "last_update": call.time,
        "last_change": call.time,
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


class _WithStatistics(RequestBody, frozen=True):
    include_stats: bool = False


@service.action(Json, Access.READ)
def get_all(request: Json, call: Call) -> Answer:
    """List models."""
    found, paging = listing.find(call.db, models, request)
    return {"models": found, **paging}


@service.action(Json, Access.READ)
def get_all_ex(request: Json, call: Call) -> Answer:
    """List models, with what they refer to in place of ids; with ``include_stats`` also how many labels they have."""
    wanted = msgspec.convert(request, decodable(_WithStatistics), strict=False)
    found, paging = joined.find(call.db, models, request, options=frozenset(_WithStatistics.__struct_fields__))
    if wanted.include_stats:
        for model in found:
            labels = model.get("labels") or (models.get(call.db, model["id"], ("labels",)) or {}).get("labels") or {}
            model["stats"] = {"labels_count": len(labels)}
    return {"models": found, **paging}


@service.action(Json, Access.READ)
def get_by_id_ex(request: Json, call: Call) -> Answer:
    """Models by their ids, with what they refer to in place of ids."""
    if not request.get("id"):
        raise invalid("give the ids as id")
    return {"models": joined.find(call.db, models, request)[0]}


@service.action(OutputOfTaskRequest, Access.READ)
def get_by_task_id(request: OutputOfTaskRequest, call: Call) -> Answer:
    """The last output model of a task."""
    task = existing_task(call, request.task, ("models",))
    outputs = task.get("models", {}).get("output") or []
    found = models.get(call.db, str(outputs[-1].get("model"))) if outputs else None
    if found is None:
        raise ApiFault(INVALID_MODEL_ID, "the task has no output model", task=request.task)
    return {"model": found}


@service.action(FrameworksRequest, Access.READ)
def get_frameworks(request: FrameworksRequest, call: Call) -> Answer:
    """Frameworks of the models in projects and those inside them; of all where none are given."""
    ids = with_subprojects(call.db, request.projects) if request.projects else None
    return {"frameworks": project_queries.distinct(call.db, models, "framework", [in_projects(models, ids)])}


@service.action(ModelRequest, Access.READ)
def get_by_id(request: ModelRequest, call: Call) -> Answer:
    """One model."""
    return {"model": existing_model(call, request.model)}


@service.action(CreateModelRequest, Access.WRITE)
def create(request: CreateModelRequest, call: Call) -> Answer:
    """Create a model."""
    content = _content(request, call)
    if request.task and request.iteration is not None:
        _reached(call, request.task, request.iteration)
    return {"id": _insert(call, **content), "created": True}


@service.action(EditModelRequest, Access.WRITE)
def edit(request: EditModelRequest, call: Call) -> Answer:
    """Change fields of a model."""
    return _change(call, request.model, _content(request, call))


@service.action(EditModelRequest, Access.WRITE)
def update(request: EditModelRequest, call: Call) -> Answer:
    """The same as ``models.edit``."""
    return _change(call, request.model, _content(request, call))


def _change(call: Call, model: str, changes: dict[str, Any]) -> Answer:
    present = existing_model(call, model)
    stored = {**changes, "last_update": call.time, "last_change": call.time}
    if "last_iteration" in changes:
        _reached(call, changes.get("task") or present.get("task", ""), changes["last_iteration"])
    return {"updated": models.update(call.db, model, stored), "fields": changes}


def _reached(call: Call, task: str, iteration: int) -> None:
    """A model of an iteration shows that its task has come so far."""
    found = tasks.get(call.db, task, ("last_iteration",)) if task else None
    if found is not None and iteration > found.get("last_iteration", 0):
        tasks.update(call.db, task, {"last_iteration": iteration, "last_update": call.time})


@service.action(UpdateForTaskRequest, Access.WRITE)
def update_for_task(request: UpdateForTaskRequest, call: Call) -> Answer:
    """Set the URL of the task's last output model, or create a new one."""
    if bool(request.uri) == bool(request.override_model_id):
        raise ApiFault(MISSING_FIELDS, "give either uri or override_model_id", task=request.task)
    task = existing_task(call, request.task, ("status", "models", "execution", "name", "project"))
    if task["status"] not in _MAKES_MODELS:
        raise ApiFault(INVALID_TASK_STATUS, "only a draft or a running task makes models", task=request.task)
    if request.override_model_id:
        existing_model(call, request.override_model_id)
        _set_output(call, task, request.override_model_id)
        return {"id": request.override_model_id, "created": False}
    changes = given(request, {n: _FIELDS[n] for n in ("name", "uri", "comment", "tags", "system_tags", "iteration")})
    if "name" in changes:
        changes["name"] = valid_name(changes["name"])
    outputs = task.get("models", {}).get("output") or []
    identifier = str(outputs[-1].get("model")) if outputs else ""
    # A task may name any model among its outputs; the owner is a field of the model.
    if models.get(call.db, identifier, ("name",)) and owns(call, OwnerKind.MODEL, identifier):
        return {**_change(call, identifier, changes), "id": identifier, "created": False}
    if "last_iteration" in changes:
        _reached(call, request.task, changes["last_iteration"])
    execution, inputs = task.get("execution", {}), task.get("models", {}).get("input") or []
    # Not ready: it becomes final when its task is published.
    fields = {
        "name": task["name"],
        "project": task.get("project"),
        "task": request.task,
        "ready": False,
        "framework": execution.get("framework"),
        "labels": execution.get("model_labels") or {},
        "parent": inputs[0].get("model") if inputs else None,
        **changes,
    }
    identifier = _insert(call, **fields)
    _set_output(call, task, identifier)
    return {"id": identifier, "created": True, "updated": 1, "fields": changes}


def _set_output(call: Call, task: Document, model: str) -> None:
    sides = {
        "input": task.get("models", {}).get("input") or [],
        "output": [{"model": model, "name": _OUTPUT_MODEL}],
    }
    tasks.update(call.db, task["id"], {"models": sides, "last_update": call.time})


@service.action(MetadataRequest, Access.WRITE)
def add_or_update_metadata(request: MetadataRequest, call: Call) -> Answer:
    """Merge metadata of a model."""
    kept = {} if request.replace_metadata else existing_model(call, request.model).get("metadata", {})
    return {
        "updated": _change(call, request.model, {"metadata": {**kept, **metadata_by_key(request.metadata)}})["updated"]
    }


@service.action(DeleteMetadataRequest, Access.WRITE)
def delete_metadata(request: DeleteMetadataRequest, call: Call) -> Answer:
    """Delete metadata of a model."""
    present = existing_model(call, request.model).get("metadata", {})
    gone = set(request.keys)
    kept = {key: item for key, item in present.items() if key not in gone}
    return {"updated": _change(call, request.model, {"metadata": kept})["updated"]}
