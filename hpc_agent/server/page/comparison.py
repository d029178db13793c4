"""Two or more tasks next to each other: what differs, their scalars in the same charts, their plots."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from hpc_agent.server.api_fault import invalid
from hpc_agent.server.page.page_request import Json, PageRequest, redirect
from hpc_agent.server.page.rendering import number
from hpc_agent.server.page.task_columns import run_seconds
from hpc_agent.server.page.task_page import packages_of
from hpc_agent.server.store import event_store

_MOST_TASKS = 20
_MOST_ROWS = 3000
_LONG_VALUE = 2000
_PARTS = ("details", "scalars", "plots")
_FIELDS = (
    *("name", "status", "type", "project", "user", "started", "completed", "last_update", "last_iteration"),
    *("script", "container", "hyperparams", "configuration", "last_metrics", "tags"),
)


def compare_tasks(page: PageRequest) -> Response:
    """The page of a comparison, of the tasks that the address names."""
    ids = list(dict.fromkeys(id for text in page.query.get("ids", ()) for id in text.split(",") if id))
    part = page.asked("part", "details")
    if len(ids) < 2 or len(ids) > _MOST_TASKS or part not in _PARTS:
        raise invalid(f"a comparison is of 2 to {_MOST_TASKS} tasks: select them in a table of tasks")
    found = {
        task["id"]: task for task in page.calls.listed("tasks", id=ids, only_fields=[*_FIELDS], search_hidden=True)
    }
    tasks = [found[id] for id in ids if id in found]
    if len(tasks) < 2:
        raise invalid("fewer than two of these tasks exist")
    values: Json = {"groups": _groups(tasks)} if part == "details" else {}
    if part == "plots":
        values["figures"] = _figures(page, [task["id"] for task in tasks])
    return page.render(
        "compare.html",
        tasks=tasks,
        part=part,
        parts=_PARTS,
        only_differences=page.asked("all") != "1",
        ids=",".join(task["id"] for task in tasks),
        **values,
    )


def follow_comparison_link(page: PageRequest) -> Response:
    """ClearML's own address of a comparison: ``…/compare-tasks;ids=a,b/scalars/graph``."""
    ids = re.search(r"ids=([\w,*-]+)", page.path["rest"])
    rest = page.path["rest"].lower()
    part = "scalars" if "scalar" in rest else "plots" if "plots" in rest else "details"
    return redirect("/compare?" + urlencode({"ids": ids[1] if ids else "", "part": part}))


def _groups(tasks: list[Json]) -> list[Json]:
    """Rows of values in groups; of each row whether the tasks differ in it."""
    columns = [_flat(task) for task in tasks]
    groups: dict[str, dict[str, None]] = {"Details": {}, "Script": {}}
    for column in columns:
        for group, name in column:
            groups.setdefault(group, {})[name] = None
    count = 0
    shown = []
    for group, names in ((group, names) for group, names in groups.items() if names):
        rows: list[Json] = []
        for name in names if group in ("Details", "Script") else sorted(names):
            values = [column.get((group, name)) for column in columns]
            rows.append({"name": name, "cells": values, "differs": len(set(values)) > 1})
        count += len(rows)
        if count > _MOST_ROWS:
            break
        shown.append({"title": group, "rows": rows, "differing": sum(1 for row in rows if row["differs"])})
    return shown


def _flat(task: Json) -> Mapping[tuple[str, str], str]:
    """Values of a task under their group and name."""
    seconds = run_seconds(task)
    script = task.get("script") or {}
    found: dict[tuple[str, str], Any] = {
        ("Details", "Type"): task.get("type"),
        ("Details", "Tags"): ", ".join(task.get("tags") or []),
        ("Details", "Iterations"): task.get("last_iteration"),
        ("Details", "Run time, s"): None if seconds is None else round(seconds),
        ("Script", "Repository"): script.get("repository"),
        ("Script", "Branch"): script.get("branch"),
        ("Script", "Commit"): script.get("version_num"),
        ("Script", "Entry point"): script.get("entry_point"),
        ("Script", "Uncommitted changes"): script.get("diff"),
        ("Script", "Packages"): packages_of(script),
        ("Script", "Container"): (task.get("container") or {}).get("image"),
    }
    for section, items in (task.get("hyperparams") or {}).items():
        found.update({(f"Parameters: {section}", name): item.get("value") for name, item in items.items()})
    for name, item in (task.get("configuration") or {}).items():
        found["Configuration", name] = item.get("value")
    for variants in (task.get("last_metrics") or {}).values():
        for value in variants.values():
            name = f"{value.get('metric')} / {value.get('variant')}"
            group = "Usage, last value" if name.startswith(":monitor:") else "Metrics, last value"
            found[group, name] = number(value.get("value"))
    return {key: str(value)[:_LONG_VALUE] for key, value in found.items() if value not in (None, "")}


def _figures(page: PageRequest, ids: list[str]) -> list[tuple[str, str]]:
    """Metrics and variants of which any of the tasks has a plot."""
    with page.calls.read() as db:
        return sorted({(name.metric, name.variant) for id in ids for name in event_store.report_names(db, id, "plot")})
