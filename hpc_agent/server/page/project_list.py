"""The front page and the list of projects."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from starlette.responses import Response

from hpc_agent.server.page.page_request import Json, PageRequest, done
from hpc_agent.server.page.task_columns import chosen_columns
from hpc_agent.server.page.task_list import table_rows
from hpc_agent.server.store import task_counts

_RECENT = 12
_COLUMNS = ("status", "project", "user", "last_update", "run_time", "last_iteration")
_RUNNING_COLUMNS = ("status", "project", "user", "started", "run_time", "last_iteration", "last_worker")
_MOST_RUNNING = 50


def show_dashboard(page: PageRequest) -> Response:
    """What runs, what waits, what changed last."""
    fields: dict[str, Any] = {
        "only_fields": [
            *("name", "status", "project", "user", "started", "completed", "last_update", "last_iteration"),
            *("last_worker", "status_message"),
        ],
        "order_by": ["-last_update"],
        "page": 0,
        "system_tags": ["-archived"],
    }
    running = page.calls.listed("tasks", **fields, status=["in_progress"], page_size=_MOST_RUNNING)
    recent = page.calls.listed("tasks", **fields, page_size=_RECENT)
    queues = page.calls.listed("queues", order_by=["name"])
    workers = page.calls("workers.get_all")["workers"]
    with page.calls.read() as db:
        counts = task_counts.by_project_and_status(db)
    by_status: dict[str, int] = defaultdict(int)
    for count in counts:
        by_status[count.status] += count.tasks
    columns, running_columns = chosen_columns(_COLUMNS), chosen_columns(_RUNNING_COLUMNS)
    values: Json = {
        "by_status": by_status,
        "total": sum(by_status.values()),
        "columns": columns,
        "running_columns": running_columns,
        "running": table_rows(page.calls, running, running_columns),
        "recent": table_rows(page.calls, recent, columns),
        "queues": [{**queue, "total": len(queue.get("entries") or [])} for queue in queues],
        "workers": workers,
        "busy": sum(1 for worker in workers if worker.get("task")),
    }
    template = "parts/dashboard.html" if page.fragment and page.asked("part") == "all" else "dashboard.html"
    return page.render(template, **values)


def show_projects(page: PageRequest) -> Response:
    """All projects as a tree of names, with the numbers of their tasks by status."""
    hidden = page.asked("view") == "hidden"
    text = page.asked("text").strip().lower()
    found = page.calls.listed(
        "projects",
        only_fields=["name", "description", "tags", "last_update", "system_tags"],
        order_by=["name"],
        search_hidden=hidden,
    )
    with page.calls.read() as db:
        counts = task_counts.by_project_and_status(db)
    totals: dict[str, dict[str, int]] = defaultdict(dict)
    updates: dict[str, str] = {}
    for count in counts:
        totals[count.project][count.status] = count.tasks
        updates[count.project] = max(updates.get(count.project, ""), count.last_update)
    projects = [_row(project, totals, updates) for project in found if text in project["name"].lower()]
    return page.render("projects.html", projects=projects, text=page.asked("text"), hidden=hidden)


def _row(project: Json, totals: dict[str, dict[str, int]], updates: dict[str, str]) -> Json:
    above, _, label = project["name"].rpartition("/")
    counts = totals.get(project["id"], {})
    return {
        **project,
        "depth": project["name"].count("/"),
        "above": above,
        "label": label,
        "counts": counts,
        "total": sum(counts.values()),
        "updated": updates.get(project["id"], ""),
    }


def create_project(page: PageRequest) -> Response:
    name = page.sent("name").strip()
    page.calls("projects.create", name=name)
    return done(f"Project {name} created.")
