"""Tables of tasks: of one project with those inside it, or of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from hpc_agent.domain.draft import TASK_TYPES
from hpc_agent.server.page.page_request import Json, PageRequest
from hpc_agent.server.page.service_calls import ServiceCalls, exactly
from hpc_agent.server.page.task_columns import FIXED, TaskColumn, cell, column_of, offered_columns
from hpc_agent.server.page.task_query import PER_PAGE, TaskQuery

ALL = "*"
_COLUMNS_COOKIE = "hpc_agent_columns"
_COOKIE_SECONDS = 400 * 86_400
_LONGEST_COOKIE = 3000
_SAMPLE = 50
"""Tasks whose parameters and metrics are offered as columns."""
_SEPARATOR = "\x1f"


def show_tasks(page: PageRequest) -> Response:
    """The table, or its rows alone where the page asks for them to be shown again."""
    project = page.path.get("project", ALL)
    about = page.calls.one("projects", project, ("name", "description", "tags")) if project != ALL else None
    query = TaskQuery.parse(page.query, _remembered(page))
    inside = _inside(page.calls, about) if about else []
    projects = [item["id"] for item in (about, *inside) if item]
    table = task_table(page.calls, query, projects)
    template = "parts/task_rows.html" if page.fragment and page.asked("part") == "rows" else "tasks.html"
    answer = page.render(
        template,
        project=project,
        about=about,
        inside=inside,
        query=query,
        base=f"/projects/{project}/tasks",
        users=[(user["id"], user.get("name", "")) for user in page.calls.listed("users", only_fields=["name"])],
        types=[(kind, kind.replace("_", " ")) for kind in TASK_TYPES],
        **table,
    )
    if "columns" in page.query:
        chosen = _SEPARATOR.join(query.columns)
        if len(chosen) < _LONGEST_COOKIE:
            answer.set_cookie(
                _COLUMNS_COOKIE, chosen.encode().hex(), max_age=_COOKIE_SECONDS, httponly=True, samesite="lax"
            )
    return answer


def choose_columns(page: PageRequest) -> Response:
    """The dialog that chooses the columns of a table."""
    project = page.path.get("project", ALL)
    query = TaskQuery.parse(page.query, _remembered(page))
    fields: dict[str, Any] = {"only_fields": ["hyperparams", "last_metrics"], "order_by": ["-last_update"]}
    if project != ALL:
        fields["project"] = [project]
    parameters, metrics = offered_columns(page.calls.listed("tasks", **fields, page=0, page_size=_SAMPLE))
    offered = [*parameters, *metrics, *(key for key in query.columns if ":" in key)]
    found = [column for key in dict.fromkeys(offered) if (column := column_of(key))]
    return page.render(
        "dialogs/columns.html",
        base=f"/projects/{project}/tasks",
        query=query,
        fixed=FIXED,
        parameters=[column for column in found if column.key.startswith("p:")],
        metrics=[column for column in found if column.key.startswith("m:")],
    )


def task_table(calls: ServiceCalls, query: TaskQuery, projects: Sequence[str]) -> Json:
    """Rows of one page of a table, and whether more follow."""
    request = query.request(projects)
    found = calls.listed("tasks", **request)
    columns = query.shown_columns()
    return {
        "columns": columns,
        "rows": table_rows(calls, found, columns),
        "more": len(found) == PER_PAGE and bool(calls.listed("tasks", **_next_one(request))),
    }


def _next_one(request: Json) -> Json:
    """The first task behind the page: pages of one task each."""
    behind = (request["page"] + 1) * request["page_size"]
    return {**request, "only_fields": ["id"], "page": behind, "page_size": 1}


def table_rows(calls: ServiceCalls, tasks: list[Json], columns: Sequence[TaskColumn]) -> list[Json]:
    """Tasks with their cells; ids of projects, users and queues replaced by names."""
    names = {
        kind: calls.names(
            f"{kind}s", (cell(column, task) for task in tasks for column in columns if column.kind == kind)
        )
        for kind in {column.kind for column in columns} & {"project", "user", "queue"}
    }
    return [
        {
            **task,
            "cells": [
                (column.kind, names.get(column.kind, {}).get(value, "") if column.kind in names else value)
                for column in columns
                for value in (cell(column, task),)
            ],
        }
        for task in tasks
    ]


def _inside(calls: ServiceCalls, project: Json) -> list[Json]:
    """The projects inside a project, at any depth."""
    return calls.listed(
        "projects",
        name=f"^{exactly(project['name'])}/",
        only_fields=["name"],
        order_by=["name"],
        search_hidden=True,
        page=0,
    )


def _remembered(page: PageRequest) -> list[str]:
    """The columns of the visit before."""
    try:
        kept = bytes.fromhex(page.cookies.get(_COLUMNS_COOKIE, "")).decode()
    except ValueError:
        return []
    return kept.split(_SEPARATOR) if kept else []
