"""Creating and editing tasks."""

from __future__ import annotations

from typing import Literal

from hpc_agent.domain.draft import TaskType
from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, Json, RequestBody, Service, given
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.services.drafts import insert_task
from hpc_agent.server.services.projects import existing_project
from hpc_agent.server.services.task_shapes import check_shapes, keyed_configuration, keyed_hyperparams
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store.documents import Document, tasks
from hpc_agent.wire.error_kinds import INVALID_TASK_STATUS

service = Service("tasks")


class TaskContent(RequestBody, frozen=True):
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


class CreateTaskRequest(TaskContent, frozen=True, kw_only=True):
    name: str
    type: TaskType


class EditTaskRequest(TaskContent, frozen=True, kw_only=True):
    task: str
    name: str | None = None
    type: TaskType | None = None
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


def _content(request: TaskContent, call: Call) -> Json:
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
    return changes


@service.action(CreateTaskRequest, Access.WRITE)
def create(request: CreateTaskRequest, call: Call) -> Answer:
    return {"id": insert_task(call, name=request.name, type=request.type, **_content(request, call))}


@service.action(EditTaskRequest, Access.WRITE)
def edit(request: EditTaskRequest, call: Call) -> Answer:
    """Top-level fields are replaced as a whole: clients read first and send everything back.

    See docs/internals/clearml-protocol.md#edits.
    """
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
        raise ApiFault(
            INVALID_TASK_STATUS,
            "only a draft can be edited without force",
            task=task["id"],
            status=task["status"],
            expected=TaskStatus.CREATED.value,
        )


def _changed(call: Call, task: str, changes: Json) -> Answer:
    fields = {**changes, "last_update": call.time, "last_change": call.time}
    return {"updated": tasks.update(call.db, task, fields), "fields": changes}


@service.action(UpdateTaskRequest, Access.WRITE)
def update(request: UpdateTaskRequest, call: Call) -> Answer:
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
