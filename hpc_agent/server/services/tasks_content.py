"""Parts of a task: hyper-parameters, configuration, artifacts, models."""

from __future__ import annotations

from typing import Any, Literal

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, Int64, Json, RequestBody, Service
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.services.task_shapes import hyperparam, whole_execution
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store.documents import Document, tasks
from hpc_agent.wire.error_kinds import INVALID_TASK_STATUS

service = Service("tasks")

PROPERTIES = "properties"
"""Section of the user properties."""


class Item(RequestBody, frozen=True):
    """A parameter's or configuration's key; a parameter without a name means its whole section."""

    section: str = ""
    name: str | None = None


class PartRequest(RequestBody, frozen=True):
    task: str
    force: bool = False


class EditHyperParamsRequest(PartRequest, frozen=True, kw_only=True):
    hyperparams: list[Json]
    replace_hyperparams: Literal["none", "section", "all"] = "none"


class DeleteHyperParamsRequest(PartRequest, frozen=True, kw_only=True):
    hyperparams: list[Item]


class EditConfigurationRequest(PartRequest, frozen=True, kw_only=True):
    configuration: list[Json]
    replace_configuration: bool = False


class DeleteConfigurationRequest(PartRequest, frozen=True, kw_only=True):
    configuration: list[str]


class ArtifactsRequest(PartRequest, frozen=True, kw_only=True):
    artifacts: list[Json]


class TaskModelRequest(PartRequest, frozen=True, kw_only=True):
    name: str
    model: str
    type: Literal["input", "output"]
    iteration: Int64 | None = None


class ModelReference(RequestBody, frozen=True):
    name: str
    type: Literal["input", "output"]


class DeleteModelsRequest(PartRequest, frozen=True, kw_only=True):
    models: list[ModelReference]


def _open(request: PartRequest, call: Call, *fields: str) -> Document:
    """The task, refused when it is published (without force)."""
    task = existing_task(call, request.task, ("status", *fields))
    if task["status"] == TaskStatus.PUBLISHED.value and not request.force:
        raise ApiFault(INVALID_TASK_STATUS, "a published task cannot be edited", task=request.task)
    return task


def _draft(request: PartRequest, call: Call, field: str) -> Document:
    """The task, refused when it is not a draft (without force)."""
    task = existing_task(call, request.task, ("status", field))
    if task["status"] != TaskStatus.CREATED.value and not request.force:
        raise ApiFault(INVALID_TASK_STATUS, "only a draft can be edited without force", task=request.task)
    return task


def _with_parameters(request: PartRequest, call: Call, sections: set[str]) -> Document:
    """The task whose parameters are edited; user properties may be at any time."""
    if sections == {PROPERTIES}:
        return existing_task(call, request.task, ("hyperparams",))
    return _draft(request, call, "hyperparams")


def _section(name: str) -> str:
    """User properties are in one section, however it is written."""
    return PROPERTIES if name.lower() == PROPERTIES else name


def _save(call: Call, task: str, **changes: Any) -> int:
    return tasks.update(call.db, task, {**changes, "last_update": call.time, "last_change": call.time})


def _text(item: Json, field: str) -> str:
    value = item.get(field)
    if not isinstance(value, str) or not value:
        raise invalid(f"each item needs its {field} as a text")
    return value


@service.action(EditHyperParamsRequest, Access.WRITE)
def edit_hyper_params(request: EditHyperParamsRequest, call: Call) -> Answer:
    """Merge hyper-parameters, or replace named sections, or all."""
    sections: dict[str, dict[str, Json]] = {}
    for item in request.hyperparams:
        section, name = _section(_text(item, "section")), _text(item, "name")
        sections.setdefault(section, {})[name] = hyperparam(item, section, name)
    task = _with_parameters(request, call, set(sections))
    old = {} if request.replace_hyperparams == "all" else dict(task.get("hyperparams", {}))
    for section, items in sections.items():
        kept = {} if request.replace_hyperparams == "section" else old.get(section, {})
        old[section] = {**kept, **items}
    return {"updated": _save(call, request.task, hyperparams=old)}


@service.action(DeleteHyperParamsRequest, Access.WRITE)
def delete_hyper_params(request: DeleteHyperParamsRequest, call: Call) -> Answer:
    """Delete hyper-parameters or sections."""
    task = _with_parameters(request, call, {_section(item.section) for item in request.hyperparams})
    whole = {_section(item.section) for item in request.hyperparams if item.name is None}
    named = {(_section(item.section), item.name) for item in request.hyperparams}
    kept = {
        section: {name: value for name, value in items.items() if (section, name) not in named}
        for section, items in task.get("hyperparams", {}).items()
        if section not in whole
    }
    sections = {section: items for section, items in kept.items() if items}
    return {"deleted": _save(call, request.task, hyperparams=sections)}


@service.action(EditConfigurationRequest, Access.WRITE)
def edit_configuration(request: EditConfigurationRequest, call: Call) -> Answer:
    """Merge configuration objects, or replace all."""
    task = _draft(request, call, "configuration")
    items = {} if request.replace_configuration else dict(task.get("configuration", {}))
    items |= {_text(item, "name"): item for item in request.configuration}
    return {"updated": _save(call, request.task, configuration=items)}


@service.action(DeleteConfigurationRequest, Access.WRITE)
def delete_configuration(request: DeleteConfigurationRequest, call: Call) -> Answer:
    """Delete configuration objects."""
    task = _draft(request, call, "configuration")
    gone = set(request.configuration)
    items = {name: item for name, item in task.get("configuration", {}).items() if name not in gone}
    return {"deleted": _save(call, request.task, configuration=items)}


def _artifact_key(artifact: Json) -> tuple[str, str]:
    return _text(artifact, "key"), str(artifact.get("mode") or "output")


@service.action(ArtifactsRequest, Access.WRITE)
def add_or_update_artifacts(request: ArtifactsRequest, call: Call) -> Answer:
    """Register artifacts of a task."""
    task = _open(request, call, "execution")
    execution = task.get("execution", {})
    present = {_artifact_key(artifact): artifact for artifact in execution.get("artifacts") or []}
    for artifact in request.artifacts:
        key, mode = _artifact_key(artifact)
        present[key, mode] = {**artifact, "mode": mode}
    whole = whole_execution({**execution, "artifacts": list(present.values())})
    return {"updated": _save(call, request.task, execution=whole)}


@service.action(ArtifactsRequest, Access.WRITE)
def delete_artifacts(request: ArtifactsRequest, call: Call) -> Answer:
    """Remove artifacts from a task; files are kept."""
    task = _open(request, call, "execution")
    gone = {_artifact_key(artifact) for artifact in request.artifacts}
    execution = task.get("execution", {})
    kept = [a for a in execution.get("artifacts") or [] if _artifact_key(a) not in gone]
    return {"deleted": _save(call, request.task, execution={**execution, "artifacts": kept})}


@service.action(TaskModelRequest, Access.WRITE)
def add_or_update_model(request: TaskModelRequest, call: Call) -> Answer:
    """Register an input or output model of a task; one for each name and side."""
    task = _open(request, call, "models", "last_iteration")
    models = _models(task)
    reference = {"name": request.name, "model": request.model}
    names = [item.get("name") for item in models[request.type]]
    if request.name in names:
        models[request.type][names.index(request.name)] = reference
    else:
        models[request.type].append(reference)
    iteration = max(request.iteration or 0, task.get("last_iteration", 0))
    return {"updated": _save(call, request.task, models=models, last_iteration=iteration)}


@service.action(DeleteModelsRequest, Access.WRITE)
def delete_models(request: DeleteModelsRequest, call: Call) -> Answer:
    """Remove models from a task; the models stay."""
    task = _open(request, call, "models")
    gone = {(reference.type, reference.name) for reference in request.models}
    models = {
        side: [item for item in items if (side, item.get("name")) not in gone] for side, items in _models(task).items()
    }
    return {"updated": _save(call, request.task, models=models)}


def _models(task: Document) -> dict[str, list[Json]]:
    models = task.get("models", {})
    return {side: list(models.get(side) or []) for side in ("input", "output")}
