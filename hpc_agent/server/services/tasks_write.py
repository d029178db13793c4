"""``tasks.*``: create, clone and edit a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from hpc_agent.domain.draft import TaskType
from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, Json, RequestBody, Service, given
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.services.deletion import ARCHIVED, DELETED, refuse_missing_models, refuse_missing_parent
from hpc_agent.server.services.document_names import valid_name
from hpc_agent.server.services.projects import existing_project, project_named
from hpc_agent.server.services.task_shapes import (
    EXECUTION,
    SCRIPT,
    check_shapes,
    keyed_configuration,
    keyed_hyperparams,
    whole_execution,
    whole_script,
    without_legacy,
)
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store.documents import Document, new_id, projects, tasks
from hpc_agent.wire.error_kinds import INVALID_TASK_STATUS

service = Service("tasks")

_OF_ONE_TASK = frozenset({"development", ARCHIVED})
"""System tags that a copy does not have."""
_MERGED = ("script", "execution", "output", "models")
"""Fields of which an edit changes only the parts that it gives."""
_INHERITED = ("type", "comment", "tags", "script")
_RENAMED = {
    "new_task_comment": "comment",
    "new_task_tags": "tags",
    "new_task_system_tags": "system_tags",
    "new_task_parent": "parent",
}


class TaskContent(RequestBody, frozen=True):
    """Fields that both ``create`` and ``edit`` take."""

    tags: list[str] | None = None
    system_tags: list[str] | None = None
    comment: str | None = None
    project: str | None = None
    parent: str | None = None
    output_dest: str | None = None
    script: Json | None = None
    execution: Json | None = None
    hyperparams: dict[str, dict[str, Json]] | None = None
    configuration: dict[str, Json] | None = None
    models: dict[Literal["input", "output"], list[Json] | None] | None = None
    container: Json | None = None
    runtime: Json | None = None


class CreateTaskRequest(TaskContent, frozen=True, kw_only=True):
    name: str
    type: TaskType


class EditTaskRequest(TaskContent, frozen=True, kw_only=True):
    task: str
    name: str | None = None
    type: TaskType | None = None
    status: TaskStatus | None = None
    force: bool = False


class UpdateTaskRequest(RequestBody, frozen=True):
    task: str
    name: str | None = None
    tags: list[str] | None = None
    system_tags: list[str] | None = None
    comment: str | None = None
    project: str | None = None
    status_message: str | None = None
    status_reason: str | None = None


class CloneRequest(RequestBody, frozen=True):
    task: str
    new_task_name: str | None = None
    new_task_comment: str | None = None
    new_task_tags: list[str] | None = None
    new_task_system_tags: list[str] | None = None
    new_task_parent: str | None = None
    new_task_project: str | None = None
    new_project_name: str | None = None
    new_task_hyperparams: dict[str, dict[str, Json]] | None = None
    new_task_configuration: dict[str, Json] | None = None
    new_task_container: Json | None = None
    new_task_input_models: list[Json] | None = None
    execution_overrides: Json | None = None
    validate_references: bool = False


class RequirementsRequest(RequestBody, frozen=True):
    task: str
    requirements: dict[str, str | list[str] | None]


_CONTENT = (
    "tags",
    "system_tags",
    "comment",
    "project",
    "parent",
    "script",
    "execution",
    "hyperparams",
    "configuration",
    "models",
    "container",
    "runtime",
)


def checked_content(request: TaskContent, call: Call, previous: Mapping[str, Any] | None = None) -> Json:
    """The columns that a request sets, in a new task or in ``previous``, of which it has ``_MERGED`` and more."""
    before = previous or {}
    if request.project:
        existing_project(call, request.project)
    refuse_missing_parent(call, request.parent)
    changes = without_legacy(given(request, _CONTENT), before)
    if request.output_dest is not None:
        changes["output"] = {"destination": request.output_dest}
    if "hyperparams" in changes:
        changes["hyperparams"] = keyed_hyperparams(changes["hyperparams"])
    if "configuration" in changes:
        changes["configuration"] = keyed_configuration(changes["configuration"])
    changes |= {name: {**before.get(name, {}), **changes[name]} for name in _MERGED if name in changes}
    if "models" in changes:
        changes["models"] = {side: changes["models"].get(side) or [] for side in ("input", "output")}
    check_shapes(changes)
    # One that it has already may have been deleted since: a client sends back what it read.
    present = {item.get("model") for item in before.get("models", {}).get("input") or []}
    inputs = changes.get("models", {}).get("input", [])
    refuse_missing_models(call, [item for item in inputs if item.get("model") not in present])
    if "execution" in changes:
        changes["execution"] = whole_execution(changes["execution"])
    if "script" in changes:
        changes["script"] = whole_script(changes["script"])
    return changes


def insert_task(call: Call, **fields: Any) -> str:
    """Add a draft with every field that clients expect to find; returns its id.

    See docs/internals/clearml-protocol.md#task-object.
    """
    task: Document = {
        "id": new_id(),
        **call.owner,
        "created": call.time,
        "last_update": call.time,
        "last_change": call.time,
        "status": TaskStatus.CREATED.value,
        "status_changed": call.time,
        "status_reason": "",
        "status_message": "",
        "comment": "",
        "last_iteration": 0,
        "last_metrics": {},
        "tags": [],
        "system_tags": [],
        "output": {},
        "execution": dict(EXECUTION),
        "container": {},
        "models": {"input": [], "output": []},
        "script": dict(SCRIPT),
        "hyperparams": {},
        "configuration": {},
        "runtime": {},
        **fields,
        "name": valid_name(fields["name"]),
    }
    tasks.insert(call.db, task)
    if task.get("project"):
        projects.update(call.db, task["project"], {"last_update": call.time})
    return str(task["id"])


@service.action(CreateTaskRequest, Access.WRITE)
def create(request: CreateTaskRequest, call: Call) -> Answer:
    """Create a draft."""
    return {"id": insert_task(call, name=request.name, type=request.type, **checked_content(request, call))}


@service.action(EditTaskRequest, Access.WRITE)
def edit(request: EditTaskRequest, call: Call) -> Answer:
    """Change a draft, with force any task.

    See docs/internals/clearml-protocol.md#edits.
    """
    task = existing_task(call, request.task, ("status", "hyperparams", "configuration", *_MERGED))
    _refuse_running(task, request.force)
    changes = {**checked_content(request, call, task), **given(request, ("name", "type"))}
    if request.status is not None:
        changes |= {"status": request.status.value, "status_changed": call.time}
    if "execution" in changes:
        # Only enqueue and dequeue set the queue: a client that sends back what it read must not undo them.
        queue = task.get("execution", {}).get("queue")
        changes["execution"] = {**changes["execution"], **({"queue": queue} if queue else {})}
    return _changed(call, request.task, changes)


def _refuse_running(task: Document, force: bool) -> None:
    if not force and task["status"] != TaskStatus.CREATED.value:
        raise ApiFault(
            INVALID_TASK_STATUS,
            "only a draft can be edited without force",
            task=task["id"],
            status=task["status"],
            expected=TaskStatus.CREATED.value,
        )


def _changed(call: Call, task: str, changes: Json) -> Answer:
    if "name" in changes:
        changes = {**changes, "name": valid_name(changes["name"])}
    fields = {**changes, "last_update": call.time, "last_change": call.time}
    return {"updated": tasks.update(call.db, task, fields), "fields": changes}


@service.action(UpdateTaskRequest, Access.WRITE)
def update(request: UpdateTaskRequest, call: Call) -> Answer:
    """Change the few fields that may change in any status."""
    existing_task(call, request.task, ("status",))
    if request.project:
        existing_project(call, request.project)
    names = ("name", "tags", "system_tags", "comment", "project", "status_message", "status_reason")
    return _changed(call, request.task, given(request, names))


@service.action(RequirementsRequest, Access.WRITE)
def set_requirements(request: RequirementsRequest, call: Call) -> Answer:
    """Replace the packages of a task."""
    task = existing_task(call, request.task, ("script",))
    return _changed(call, request.task, {"script": {**task.get("script", {}), "requirements": request.requirements}})


@service.action(CloneRequest, Access.WRITE)
def clone(request: CloneRequest, call: Call) -> Answer:
    """A draft with the same code, parameters and inputs, and without outputs of the original's run."""
    source = existing_task(call, request.task)
    check_shapes({"execution": request.execution_overrides})
    overrides = without_legacy({"execution": request.execution_overrides or {}}, source)
    inputs = request.new_task_input_models or overrides.get("models", {}).get("input")
    container = request.new_task_container or source.get("container", {})
    execution = _execution(source, overrides["execution"])
    check_shapes({"container": container, "models": {"input": inputs or []}})
    project, made = _project(request, call)
    _refuse_missing(request, call, source, inputs)
    fields = {name: source[name] for name in _INHERITED if name in source}
    fields |= {name: value for name, value in given(request, _RENAMED).items() if value}
    hyperparams = request.new_task_hyperparams or overrides.get("hyperparams") or source.get("hyperparams", {})
    configuration = request.new_task_configuration or overrides.get("configuration") or source.get("configuration", {})
    identifier = insert_task(
        call,
        **{
            "parent": _parent_of_copy(source),
            "system_tags": [tag for tag in source.get("system_tags", []) if tag not in _OF_ONE_TASK],
            **fields,
        },
        name=request.new_task_name or source["name"],
        project=project or source.get("project"),
        output={k: v for k, v in source.get("output", {}).items() if k == "destination"},
        execution=execution,
        models={"input": inputs or source.get("models", {}).get("input", []), "output": []},
        container=container,
        hyperparams=keyed_hyperparams(hyperparams),
        configuration=keyed_configuration(configuration),
    )
    return {"id": identifier, **({"new_project": {"id": project, "name": request.new_project_name}} if made else {})}


def _refuse_missing(request: CloneRequest, call: Call, source: Document, inputs: list[Json] | None) -> None:
    """What the request names must be there; what the original refers to only where ``validate_references`` asks.

    Raises:
        ApiFault: 400/201 or 400/101.
    """
    strict = request.validate_references
    refuse_missing_models(call, inputs or (source.get("models", {}).get("input", []) if strict else []))
    refuse_missing_parent(call, request.new_task_parent or (source.get("parent") if strict else None))


def _parent_of_copy(source: Document) -> str:
    """A copy's parent is that of the original, or else the original."""
    parent = source.get("parent") or ""
    return parent if parent and not parent.startswith(DELETED) else str(source["id"])


def _project(request: CloneRequest, call: Call) -> tuple[str | None, bool]:
    """The copy's project, and whether it was named and not given by its id."""
    if request.new_task_project:
        return str(existing_project(call, request.new_task_project)["id"]), False
    if not request.new_project_name:
        return None, False
    return project_named(call, request.new_project_name), True


def _execution(source: Document, overrides: Json) -> Json:
    execution = {**source.get("execution", {}), **overrides}
    execution.pop("queue", None)
    inputs = [artifact for artifact in execution.get("artifacts") or [] if artifact.get("mode") == "input"]
    return whole_execution({**execution, "artifacts": inputs})
