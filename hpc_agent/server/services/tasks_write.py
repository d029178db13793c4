"""``tasks.*``: create, clone and edit a task."""

from __future__ import annotations

from typing import Any, Literal

from hpc_agent.domain.draft import TaskType
from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, Json, RequestBody, Service, given
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.services.deletion import refuse_missing_models
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
)
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store.documents import Document, new_id, projects, tasks
from hpc_agent.wire.error_kinds import INVALID_TASK_STATUS

service = Service("tasks")

_DEVELOPMENT = "development"
_INHERITED = ("type", "comment", "tags", "system_tags", "parent", "script")
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


def checked_content(request: TaskContent, call: Call) -> Json:
    """The columns that a request sets."""
    if request.project:
        existing_project(call, request.project)
    changes = given(request, _CONTENT)
    if request.output_dest is not None:
        changes["output"] = {"destination": request.output_dest}
    if "hyperparams" in changes:
        changes["hyperparams"] = keyed_hyperparams(changes["hyperparams"])
    if "configuration" in changes:
        changes["configuration"] = keyed_configuration(changes["configuration"])
    if "models" in changes:
        changes["models"] = {side: changes["models"].get(side) or [] for side in ("input", "output")}
    check_shapes(changes)
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
    """Change a draft, with force any task. Each given field is replaced as a whole.

    See docs/internals/clearml-protocol.md#edits.
    """
    task = existing_task(call, request.task, ("status", "execution", "output"))
    _refuse_running(task, request.force)
    changes = {**checked_content(request, call), **given(request, ("name", "type"))}
    if request.status is not None:
        changes |= {"status": request.status.value, "status_changed": call.time}
    if "execution" in changes:
        # Only enqueue and dequeue set the queue: a client that sends back what it read must not undo them.
        queue = task.get("execution", {}).get("queue")
        changes["execution"] = {**changes["execution"], **({"queue": queue} if queue else {})}
    if "output" in changes:
        changes["output"] = {**task.get("output", {}), **changes["output"]}
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
    inputs = request.new_task_input_models
    check_shapes(
        {
            "execution": request.execution_overrides,
            "container": request.new_task_container,
            "models": {"input": inputs or []},
        }
    )
    inherited_inputs = source.get("models", {}).get("input", []) if inputs is None else inputs
    if inputs is not None or request.validate_references:
        refuse_missing_models(call, inherited_inputs)
    if request.new_task_system_tags is None:
        source["system_tags"] = [tag for tag in source.get("system_tags", []) if tag != _DEVELOPMENT]
    inherited = {name: source[name] for name in _INHERITED if name in source}
    identifier = insert_task(
        call,
        **{**inherited, **given(request, _RENAMED)},
        name=request.new_task_name or f"Clone Of {source['name']}",
        project=_project(request, call) or source.get("project"),
        output={k: v for k, v in source.get("output", {}).items() if k == "destination"},
        execution=_execution(source, request),
        models={"input": inherited_inputs, "output": []},
        container=request.new_task_container or source.get("container", {}),
        hyperparams=keyed_hyperparams({**source.get("hyperparams", {}), **(request.new_task_hyperparams or {})}),
        configuration=keyed_configuration(
            {**source.get("configuration", {}), **(request.new_task_configuration or {})}
        ),
    )
    return {"id": identifier}


def _project(request: CloneRequest, call: Call) -> str | None:
    if request.new_task_project:
        return str(existing_project(call, request.new_task_project)["id"])
    return project_named(call, request.new_project_name) if request.new_project_name else None


def _execution(source: Document, request: CloneRequest) -> Json:
    execution = {**source.get("execution", {}), **(request.execution_overrides or {})}
    execution.pop("queue", None)
    inputs = [artifact for artifact in execution.get("artifacts") or [] if artifact.get("mode") == "input"]
    return whole_execution({**execution, "artifacts": inputs})
