"""Columns of the table of tasks: fields that every task has, its parameters, and its latest metrics.

A column's key is ``status``, ``p:<section>/<name>`` for a parameter, ``m:<metric>/<variant>`` for a metric.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hpc_agent.server.page.rendering import parse_moment

Json = Mapping[str, Any]
_LONGEST_KEY = 300
_MOST_COLUMNS = 40


@dataclass(frozen=True)
class TaskColumn:
    """``field``: what is asked of the server; ``order``: the field to sort by, empty where it cannot be sorted."""

    key: str
    title: str
    field: str
    order: str = ""
    kind: str = "text"
    """How a cell is shown: text, status, moment, duration, tags, number, project, user or queue."""


FIXED = (
    TaskColumn("status", "Status", "status", "status", "status"),
    TaskColumn("type", "Type", "type", "type"),
    TaskColumn("project", "Project", "project", "project", "project"),
    TaskColumn("tags", "Tags", "tags", "", "tags"),
    TaskColumn("user", "User", "user", "user", "user"),
    TaskColumn("created", "Created", "created", "created", "moment"),
    TaskColumn("started", "Started", "started", "started", "moment"),
    TaskColumn("completed", "Ended", "completed", "completed", "moment"),
    TaskColumn("last_update", "Updated", "last_update", "last_update", "moment"),
    TaskColumn("run_time", "Run time", "started", "", "duration"),
    TaskColumn("last_iteration", "Iteration", "last_iteration", "last_iteration", "number"),
    TaskColumn("queue", "Queue", "execution.queue", "", "queue"),
    TaskColumn("last_worker", "Worker", "last_worker", "last_worker"),
    TaskColumn("status_message", "Message", "status_message", ""),
    TaskColumn("comment", "Comment", "comment", ""),
)
DEFAULT = ("status", "type", "tags", "user", "last_update", "run_time", "last_iteration")
_BY_KEY = {column.key: column for column in FIXED}


def chosen_columns(keys: Iterable[str]) -> list[TaskColumn]:
    """The columns of these keys; unknown ones are left out."""
    found = (column_of(key) for key in dict.fromkeys(keys))
    return [column for column in found if column is not None][:_MOST_COLUMNS]


def column_of(key: str) -> TaskColumn | None:
    if key in _BY_KEY:
        return _BY_KEY[key]
    kind, _, path = key[:_LONGEST_KEY].partition(":")
    group, slash, name = path.partition("/") if kind == "p" else path.rpartition("/")
    if kind not in ("p", "m") or not slash or not group or not name:
        return None
    if kind == "m":
        field = f"last_metrics.{_hash(group)}.{_hash(name)}.value"
        return TaskColumn(key, f"{group} / {name}", field, field, "number")
    # A dot in a name would lead into an object: such a column is shown, but not sorted.
    order = f"hyperparams.{group}.{name}.value" if "." not in path and '"' not in path else ""
    return TaskColumn(key, name if group == "Args" else f"{group}/{name}", "hyperparams", order)


def cell(column: TaskColumn, task: Json) -> Any:
    """The value of a task in a column, None where it has none."""
    if column.key == "run_time":
        return run_seconds(task)
    if column.key.startswith("p:"):
        section, _, name = column.key[2:].partition("/")
        return _at(task, ("hyperparams", section, name, "value"))
    value = _at(task, column.field.split("."))
    return None if column.key == "last_iteration" and not value else value


def run_seconds(task: Json) -> float | None:
    """How long a task ran, or has been running by its last update; None where it never started."""
    began = parse_moment(str(task.get("started") or ""))
    ended = parse_moment(str(task.get("completed") or task.get("last_update") or ""))
    return max((ended - began).total_seconds(), 0.0) if began and ended else None


def offered_columns(tasks: Iterable[Json]) -> tuple[list[str], list[str]]:
    """Keys of the parameters and of the metrics that these tasks have."""
    parameters: dict[str, None] = {}
    metrics: dict[str, None] = {}
    for task in tasks:
        for section, items in (task.get("hyperparams") or {}).items():
            parameters.update(dict.fromkeys(f"p:{section}/{name}" for name in items))
        for variants in (task.get("last_metrics") or {}).values():
            for value in variants.values():
                metrics[f"m:{value.get('metric')}/{value.get('variant')}"] = None
    return sorted(parameters)[:_LONGEST_KEY], sorted(metrics)[:_LONGEST_KEY]


def _hash(name: str) -> str:
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def _at(value: Any, path: Iterable[str]) -> Any:
    for part in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value
