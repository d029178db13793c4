"""Copies of tasks."""

from __future__ import annotations

from hpc_agent.server.action import Access, Answer, Call, Json, RequestBody, Service, given
from hpc_agent.server.services.drafts import insert_task
from hpc_agent.server.services.projects import existing_project, project_named
from hpc_agent.server.services.task_shapes import check_shapes, keyed_configuration, keyed_hyperparams
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store.documents import Document

service = Service("tasks")

_DEVELOPMENT = "development"
_INHERITED = ("type", "comment", "tags", "system_tags", "parent", "script")
_RENAMED = {
    "new_task_comment": "comment",
    "new_task_tags": "tags",
    "new_task_system_tags": "system_tags",
    "new_task_parent": "parent",
}


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


@service.action(CloneRequest, Access.WRITE)
def clone(request: CloneRequest, call: Call) -> Answer:
    """A draft with the same code, parameters and inputs; nothing of what the original's run produced."""
    source = existing_task(call, request.task)
    inputs = request.new_task_input_models
    check_shapes(
        {
            "execution": request.execution_overrides,
            "container": request.new_task_container,
            "models": {"input": inputs or []},
        }
    )
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
        models={"input": source.get("models", {}).get("input", []) if inputs is None else inputs, "output": []},
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
    return {**execution, "artifacts": [a for a in execution.get("artifacts") or [] if a.get("mode") == "input"]}
