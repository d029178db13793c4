"""Creating, editing, copying and deleting tasks."""

from __future__ import annotations

from typing import Any, Literal

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.fault import Fault, invalid
from hpc_agent.server.ids import new_id
from hpc_agent.server.service import Access, Answer, Call, Json, Request, Service, given
from hpc_agent.server.services.projects import existing_project, project_named
from hpc_agent.server.services.task_shapes import keyed_configuration, keyed_hyperparams
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import entries, events
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Document, models, projects, tasks
from hpc_agent.server.store.query import Query
from hpc_agent.wire.errors import INVALID_TASK_STATUS, TASK_CANNOT_BE_DELETED

service = Service("tasks")

TaskType = Literal[
    "training",
    "testing",
    "inference",
    "data_processing",
    "application",
    "monitor",
    "controller",
    "optimizer",
    "service",
    "qc",
    "custom",
]
_ARCHIVED = "archived"
_OWN_RUN = frozenset({"development"})
"""System tags that a copy does not inherit."""


class Content(Request, frozen=True):
    """What both ``create`` and ``edit`` take."""

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


class CreateRequest(Content, frozen=True, kw_only=True):
    name: str
    type: TaskType


class EditRequest(Content, frozen=True, kw_only=True):
    task: str
    name: str | None = None
    type: TaskType | None = None
    force: bool = False


class UpdateRequest(Request, frozen=True):
    task: str
    name: str | None = None
    tags: list[str] | None = None
    system_tags: list[str] | None = None
    comment: str | None = None
    project: str | None = None
    status_message: str | None = None
    status_reason: str | None = None


class CloneRequest(Request, frozen=True):
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


class RequirementsRequest(Request, frozen=True):
    task: str
    requirements: Json


class DeleteRequest(Request, frozen=True):
    task: str
    force: bool = False
    delete_output_models: bool = True
    return_file_urls: bool = False


class ArchiveRequest(Request, frozen=True):
    tasks: list[str]
    status_reason: str = ""
    status_message: str = ""


class ManyRequest(Request, frozen=True):
    ids: list[str]


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


def _content(request: Content, call: Call) -> Json:
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
    return changes


@service.action(CreateRequest, Access.WRITE)
def create(request: CreateRequest, call: Call) -> Answer:
    return {"id": _insert(call, name=request.name, type=request.type, **_content(request, call))}


def _insert(call: Call, **fields: Any) -> str:
    if not str(fields["name"]).strip():
        raise invalid("a task needs a name")
    task: Document = {
        "id": new_id(),
        "user": call.identity.user,
        "company": call.identity.company,
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
        "execution": {},
        "container": {},
        "models": {"input": [], "output": []},
        "script": {},
        "hyperparams": {},
        "configuration": {},
        "runtime": {},
        **fields,
    }
    tasks.insert(call.db, task)
    if task.get("project"):
        projects.update(call.db, task["project"], {"last_update": call.time})
    return str(task["id"])


@service.action(EditRequest, Access.WRITE)
def edit(request: EditRequest, call: Call) -> Answer:
    """Top-level fields are replaced as a whole: clients read first and send everything back (wire.md 8.2)."""
    task = existing_task(call, request.task, ("status", "execution", "output"))
    _refuse_running(task, request.force)
    changes = {**_content(request, call), **given(request, ("name", "type"))}
    if "execution" in changes:
        # The queue is the server's to say: a client that sends back what it read must not undo an enqueue.
        queue = task.get("execution", {}).get("queue")
        changes["execution"] = {**changes["execution"], **({"queue": queue} if queue else {})}
    if "output" in changes:
        changes["output"] = {**task.get("output", {}), **changes["output"]}
    return _changed(call, request.task, changes)


def _refuse_running(task: Document, force: bool) -> None:
    if not force and task["status"] != TaskStatus.CREATED.value:
        raise Fault(
            INVALID_TASK_STATUS,
            "only a draft can be edited without force",
            task=task["id"],
            status=task["status"],
            expected=TaskStatus.CREATED.value,
        )


def _changed(call: Call, task: str, changes: Json) -> Answer:
    fields = {**changes, "last_update": call.time, "last_change": call.time}
    return {"updated": tasks.update(call.db, task, fields), "fields": changes}


@service.action(UpdateRequest, Access.WRITE)
def update(request: UpdateRequest, call: Call) -> Answer:
    """The few fields that may change in any status."""
    existing_task(call, request.task, ("status",))
    if request.project:
        existing_project(call, request.project)
    names = ("name", "tags", "system_tags", "comment", "project", "status_message", "status_reason")
    return _changed(call, request.task, given(request, names))


@service.action(RequirementsRequest, Access.WRITE)
def set_requirements(request: RequirementsRequest, call: Call) -> Answer:
    task = existing_task(call, request.task, ("script",))
    return _changed(call, request.task, {"script": {**task.get("script", {}), "requirements": request.requirements}})


@service.action(CloneRequest, Access.WRITE)
def clone(request: CloneRequest, call: Call) -> Answer:
    """A draft with the same code, parameters and inputs; nothing of what the original's run produced."""
    source = existing_task(call, request.task)
    project, created = request.new_task_project or source.get("project"), None
    if request.new_task_project:
        existing_project(call, request.new_task_project)
    elif request.new_project_name:
        project = project_named(call, request.new_project_name)
        created = {"id": project, "name": request.new_project_name}
    execution = {**source.get("execution", {}), **(request.execution_overrides or {})}
    execution.pop("queue", None)
    execution["artifacts"] = [a for a in execution.get("artifacts") or [] if a.get("mode") == "input"]
    inputs = request.new_task_input_models
    copied: Json = {name: source[name] for name in ("type", "comment", "tags", "parent", "script") if name in source}
    copied |= given(
        request,
        {"new_task_comment": "comment", "new_task_tags": "tags", "new_task_parent": "parent"},
    )
    identifier = _insert(
        call,
        **copied,
        name=request.new_task_name or f"Clone Of {source['name']}",
        project=project,
        system_tags=request.new_task_system_tags
        if request.new_task_system_tags is not None
        else [tag for tag in source.get("system_tags", []) if tag not in _OWN_RUN],
        output={k: v for k, v in source.get("output", {}).items() if k == "destination"},
        execution=execution,
        models={"input": source.get("models", {}).get("input", []) if inputs is None else inputs, "output": []},
        container=request.new_task_container or source.get("container", {}),
        hyperparams=keyed_hyperparams({**source.get("hyperparams", {}), **(request.new_task_hyperparams or {})}),
        configuration=keyed_configuration(
            {**source.get("configuration", {}), **(request.new_task_configuration or {})}
        ),
    )
    return {"id": identifier, **({"new_project": created} if created else {})}


@service.action(DeleteRequest, Access.WRITE)
def delete(request: DeleteRequest, call: Call) -> Answer:
    task = existing_task(call, request.task, ("status", "system_tags"))
    if not request.force and task["status"] != TaskStatus.CREATED.value and _ARCHIVED not in task["system_tags"]:
        raise Fault(TASK_CANNOT_BE_DELETED, "due to its status, use force=true", task=task["id"], status=task["status"])
    deleted_models = 0
    if request.delete_output_models:
        made = Query((q.compare(q.field(models.table, "task"), "=", request.task),), fields=("uri",))
        found = models.find(call.db, made)
        deleted_models = sum(models.delete(call.db, model["id"]) for model in found)
    entries.remove_everywhere(call.db, request.task)
    events.delete_for_task(call.db, request.task)
    return {"deleted": bool(tasks.delete(call.db, request.task)), "deleted_models": deleted_models}


def _tag(call: Call, task: str, archived: bool, **also: str) -> int:
    found = existing_task(call, task, ("system_tags",))
    tags = [tag for tag in found["system_tags"] if tag != _ARCHIVED] + ([_ARCHIVED] if archived else [])
    return tasks.update(call.db, task, {"system_tags": tags, "last_change": call.time, **also})


@service.action(ArchiveRequest, Access.WRITE)
def archive(request: ArchiveRequest, call: Call) -> Answer:
    for task in request.tasks:
        entries.remove_everywhere(call.db, task)
    reason = {"status_reason": request.status_reason, "status_message": request.status_message}
    return {"archived": sum(_tag(call, task, True, **reason) for task in request.tasks)}


@service.action(ManyRequest, Access.WRITE)
def archive_many(request: ManyRequest, call: Call) -> Answer:
    for task in request.ids:
        _tag(call, task, True)
    return {"succeeded": [{"id": task, "archived": True} for task in request.ids], "failed": []}


@service.action(ManyRequest, Access.WRITE)
def unarchive_many(request: ManyRequest, call: Call) -> Answer:
    for task in request.ids:
        _tag(call, task, False)
    return {"succeeded": [{"id": task, "unarchived": True} for task in request.ids], "failed": []}
