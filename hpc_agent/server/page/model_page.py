"""Models: a table, and one model with its file, labels and metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

from hpc_agent.server.api_fault import invalid
from hpc_agent.server.page.page_request import Json, PageRequest, Undo, done
from hpc_agent.server.page.service_calls import exactly
from hpc_agent.server.page.task_page import file_link

_PER_PAGE = 100
_ALL = "*"
_MOST_ITEMS = 1000


def show_models(page: PageRequest) -> Response:
    """Models of a project or of all, newest first."""
    project = page.path.get("project", _ALL)
    number = page.asked("page", "0")
    if not number.isdecimal() or len(number) > 9:
        raise invalid("page must be a number")
    archived = page.asked("view") == "archived"
    wanted: dict[str, Any] = {
        "only_fields": ["name", "project", "task", "framework", "ready", "tags", "last_update", "user"],
        "order_by": ["-last_update"],
        "page": int(number),
        "page_size": _PER_PAGE,
        "system_tags": ["archived"] if archived else ["-archived"],
    }
    if project != _ALL:
        wanted["project"] = [project]
    if text := page.asked("text").strip():
        wanted["_any_"] = {"pattern": exactly(text), "fields": ["name", "id"]}
    models = page.calls.listed("models", **wanted)
    return page.render(
        "models.html",
        models=models,
        number=int(number),
        more=len(models) == _PER_PAGE,
        text=text,
        view="archived" if archived else "active",
        tasks=page.calls.names("tasks", (model.get("task") for model in models)),
        projects=page.calls.names("projects", (model.get("project") for model in models)),
        project=project,
        about=page.calls.one("projects", project, ("name",)) if project != _ALL else None,
    )


def show_model(page: PageRequest) -> Response:
    """One model."""
    model = page.calls.one("models", page.path["model"])
    task = model.get("task") or ""
    return page.render(
        "model.html",
        model=model,
        archived="archived" in (model.get("system_tags") or []),
        link=file_link(page.uploads, str(model.get("uri") or "")),
        task_name=page.calls.names("tasks", [task]).get(task, ""),
        task=task,
        owner=page.calls.names("users", [model.get("user")]).get(model.get("user", ""), ""),
        project_name=page.calls.names("projects", [model.get("project")]).get(model.get("project") or "", ""),
        metadata=_items(model.get("metadata")),
        labels=sorted((model.get("labels") or {}).items(), key=lambda pair: str(pair[1]))[:_MOST_ITEMS],
    )


def _items(metadata: Any) -> list[Json]:
    values = metadata.values() if isinstance(metadata, dict) else metadata or []
    return [item for item in values if isinstance(item, dict)][:_MOST_ITEMS]


def run_model_action(page: PageRequest) -> Response:
    """Publish, archive, bring back or delete a model."""
    action = _ACTIONS.get(page.path["action"])
    if action is None:
        raise invalid(f"there is no action {page.path['action'][:40]}")
    return action(page, page.sent("id"))


def _publish(page: PageRequest, model: str) -> Response:
    page.calls("models.set_ready", model=model)
    return done("Model published.")


def _archive(page: PageRequest, model: str) -> Response:
    page.calls("models.archive_many", ids=[model])
    return done("Model archived.", Undo("/models/actions/unarchive", {"id": [model]}))


def _unarchive(page: PageRequest, model: str) -> Response:
    page.calls("models.unarchive_many", ids=[model])
    return done("Model brought back.", Undo("/models/actions/archive", {"id": [model]}))


def _delete(page: PageRequest, model: str) -> Response:
    page.calls("models.delete", model=model)
    return done("Model deleted; its file is kept.", go="/projects/*/models")


_ACTIONS: Mapping[str, Callable[[PageRequest, str], Response]] = {
    "publish": _publish,
    "archive": _archive,
    "unarchive": _unarchive,
    "delete": _delete,
}
