"""The page of one task: its head, and the tab that its address names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.responses import Response

from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.page import task_console, task_job
from hpc_agent.server.page.page_request import Json, PageRequest
from hpc_agent.server.page.rendering import natural_order, segment
from hpc_agent.server.page.service_calls import ServiceCalls
from hpc_agent.server.page.task_columns import run_seconds
from hpc_agent.server.store import event_store, scalar_store
from hpc_agent.server.uploads import Uploads

TABS = {
    "info": "Overview",
    "execution": "Execution",
    "configuration": "Configuration",
    "artifacts": "Artifacts",
    "console": "Console",
    "scalars": "Scalars",
    "plots": "Plots",
    "images": "Images",
    "job": "Job",
}
_WORDS = {
    "log": "console",
    "console": "console",
    "scalar": "scalars",
    "scalars": "scalars",
    "plots": "plots",
    "debugimages": "images",
    "images": "images",
    "hyper-params": "configuration",
    "configuration": "configuration",
    "artifacts": "artifacts",
    "execution": "execution",
    "job": "job",
    "general": "info",
    "info": "info",
}
"""Words of the addresses that ClearML's clients and pages print, and the tab that each opens."""

_HEAD = (
    "name",
    "type",
    "project",
    "status",
    "status_reason",
    "status_message",
    "last_worker",
    "last_iteration",
    "created",
    "started",
    "completed",
    "last_update",
    "tags",
    "system_tags",
    "user",
    "execution.queue",
)
_CONTENT: Mapping[str, tuple[str, ...]] = {
    "info": ("comment", "parent", "last_metrics", "output", "hyperparams.properties", "published", "runtime"),
    "execution": ("script", "container", "output"),
    "configuration": ("hyperparams", "configuration"),
    "artifacts": ("execution.artifacts", "models"),
    "job": ("hyperparams.properties", "runtime", "status_changed", "last_worker_report"),
}
_LEADING_TYPES = ("controller", "optimizer")
"""Types of tasks that start others: pipelines and searches."""
_LIVE = ("queued", "in_progress")
_LONG_FIELD = 20_000
_LONG_SOURCE = 500_000
"""Characters shown of a field, and of a script: the API has the rest."""
_MOST_ITEMS = 1000


def show_task(page: PageRequest) -> Response:
    """The whole page, or the tab alone where it shows itself again."""
    tab = tab_of(page.path.get("tab", ""))
    task = find_task(page.calls, page.path["task"], (*_HEAD, *_CONTENT.get(tab, ())))
    template = f"task/{tab}.html" if page.fragment and page.asked("part") == "tab" else "task.html"
    return page.render(
        template,
        **head(page.calls, task),
        tab=tab,
        tabs=TABS,
        **_TAB_VALUES[tab](page, task),
    )


def show_head(page: PageRequest) -> Response:
    """The head alone: name, status, actions."""
    task = find_task(page.calls, page.path["task"], _HEAD)
    return page.render("task/head.html", **head(page.calls, task), tab=page.asked("tab", "info"))


def find_task(calls: ServiceCalls, id: str, fields: Iterable[str]) -> Json:
    """
    Raises:
        ApiFault: 404.
    """
    return calls.one("tasks", id, fields)


def head(calls: ServiceCalls, task: Json) -> Json:
    """What every tab shows of a task."""
    project = task.get("project") or ""
    queue = (task.get("execution") or {}).get("queue") or ""
    return {
        "task": task,
        "project": project or "*",
        "project_name": calls.names("projects", [project]).get(project, ""),
        "queue": {"id": queue, "name": calls.names("queues", [queue]).get(queue, "")} if queue else None,
        "owner": calls.names("users", [task.get("user")]).get(task.get("user", ""), ""),
        "live": task["status"] in _LIVE,
        "archived": "archived" in (task.get("system_tags") or []),
        "draft": task["status"] == "created",
        "run_time": run_seconds(task),
        "address": f"/projects/{segment(project or '*')}/tasks/{segment(task['id'])}",
    }


def tab_of(path: str) -> str:
    """The tab that the rest of a link names: ``output/log``, ``info-output/metrics/scalar``, ``hyper-params/…``."""
    words = [word.lower() for word in path.split("/") if word]
    return next((_WORDS[word] for word in words if word in _WORDS), "info")


def _info(page: PageRequest, task: Json) -> Json:
    parent = task.get("parent")
    steps = []
    if task.get("type") in _LEADING_TYPES:
        fields = ["name", "status", "last_update"]
        steps = page.calls.listed(
            "tasks", parent=[task["id"]], only_fields=fields, order_by=["created"], search_hidden=True, page=0
        )
    latest = [value for variants in (task.get("last_metrics") or {}).values() for value in variants.values()]
    return {
        "metrics": sorted(latest, key=_metric_order)[:_MOST_ITEMS],
        "parent": {"id": parent, "name": page.calls.names("tasks", [parent]).get(parent, "")} if parent else None,
        "properties": _properties(task),
        "steps": steps,
    }


def _metric_order(value: Json) -> tuple[str, str]:
    return natural_order(str(value.get("metric"))), natural_order(str(value.get("variant")))


def _properties(task: Json) -> list[tuple[str, str]]:
    section = (task.get("hyperparams") or {}).get("properties") or {}
    return [(name, str(item.get("value", ""))[:_LONG_FIELD]) for name, item in sorted(section.items())][:_MOST_ITEMS]


def _execution(page: PageRequest, task: Json) -> Json:
    script = task.get("script") or {}
    return {
        "script": script,
        "container": task.get("container") or {},
        "packages": packages_of(script)[:_LONG_SOURCE],
        "diff": str(script.get("diff") or "")[:_LONG_SOURCE],
        "editing": page.asked("edit") == "execution",
    }


def packages_of(script: Json) -> str:
    """The lines of a script's requirements for pip."""
    wanted = (script.get("requirements") or {}) if isinstance(script.get("requirements"), dict) else {}
    pip = wanted.get("pip") or ""
    return pip if isinstance(pip, str) else "\n".join(map(str, pip))


def _configuration(page: PageRequest, task: Json) -> Json:
    sections = task.get("hyperparams") or {}
    return {
        "sections": {
            section: [
                {**item, "name": name, "value": str(item.get("value", ""))[:_LONG_FIELD]}
                for name, item in sorted(items.items())[:_MOST_ITEMS]
            ]
            for section, items in sorted(sections.items())[:_MOST_ITEMS]
        },
        "objects": {
            name: {**item, "value": str(item.get("value", ""))[:_LONG_SOURCE]}
            for name, item in sorted((task.get("configuration") or {}).items())[:_MOST_ITEMS]
        },
        "editing": page.asked("edit"),
    }


def _artifacts(page: PageRequest, task: Json) -> Json:
    artifacts = (task.get("execution") or {}).get("artifacts") or []
    models = task.get("models") or {}
    ids = [item.get("model") for side in ("input", "output") for item in models.get(side) or []]
    names = page.calls.names("models", ids)
    return {
        "artifacts": [
            {**item, "link": file_link(page.uploads, str(item.get("uri") or ""))} for item in artifacts[:_MOST_ITEMS]
        ],
        "models": {
            side: [
                {**item, "found": item.get("model") in names, "title": names.get(item.get("model"), item.get("name"))}
                for item in models.get(side) or []
            ]
            for side in ("input", "output")
        },
    }


def file_link(uploads: Uploads, url: str) -> str:
    """The address at which this server has an uploaded file; else the URL if a browser can open it, else nothing.

    By its path: who came through a tunnel has another name for this server than the one who uploaded.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return ""
    name = parts.path.removeprefix("/files/")
    if name != parts.path:
        try:
            uploads.existing(unquote(name))
        except ApiFault:
            return url
        return "/files/" + name
    return url


def _console(page: PageRequest, task: Json) -> Json:
    return task_console.newest(page, task["id"])


def _charts(page: PageRequest, task: Json) -> Json:
    with page.calls.read() as db:
        singles = scalar_store.single_values(db, task["id"])
    return {"singles": singles}


def _plots(page: PageRequest, task: Json) -> Json:
    with page.calls.read() as db:
        return {"figures": event_store.report_names(db, task["id"], "plot")}


def _images(page: PageRequest, task: Json) -> Json:
    with page.calls.read() as db:
        names = event_store.report_names(db, task["id"], "training_debug_image")
    return {"image_metrics": sorted({name.metric for name in names})}


def _job(page: PageRequest, task: Json) -> Json:
    return task_job.job_values(task)


_TAB_VALUES: Mapping[str, Callable[[PageRequest, Json], Any]] = {
    "info": _info,
    "execution": _execution,
    "configuration": _configuration,
    "artifacts": _artifacts,
    "console": _console,
    "scalars": _charts,
    "plots": _plots,
    "images": _images,
    "job": _job,
}
