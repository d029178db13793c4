"""The tables. Documents have a column for every top-level field, JSON text where ClearML has objects or lists.

A column each, not one document in one cell: a status poll (``only_fields: [status]``, every 2 s from every script)
does not parse the task's uncommitted diff.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

DATABASE = "server.db"
"""The file, in the data folder."""


class ColumnKind(Enum):
    """Kind of a column: how its field is stored, and so how it is filtered."""

    TEXT = "text"
    TIME = "time"
    """ISO 8601, UTC, always microseconds: sorts as text."""
    INTEGER = "integer"
    BOOL = "bool"
    JSON = "json"

    @property
    def sql(self) -> str:
        return "INTEGER" if self in (ColumnKind.INTEGER, ColumnKind.BOOL) else "TEXT"


@dataclass(frozen=True)
class TableSchema:
    name: str
    fields: Mapping[str, ColumnKind]
    patterns: frozenset[str] = frozenset({"name"})
    """Fields whose filters are regular expressions."""
    hidden: frozenset[str] = frozenset({"made_by"})
    """Fields that are the server's own."""
    unused: frozenset[str] = frozenset()
    """Fields that ClearML's objects have, and that are never set here."""


_T, _W, _I, _B, _J = ColumnKind.TEXT, ColumnKind.TIME, ColumnKind.INTEGER, ColumnKind.BOOL, ColumnKind.JSON

_OWNED = {
    "id": _T,
    "name": _T,
    "user": _T,
    "made_by": _T,
    "company": _T,
    "created": _W,
    "tags": _J,
    "system_tags": _J,
}
"""``made_by``: the task whose credential made it; none where a user did."""

TASKS = TableSchema(
    "tasks",
    {
        **_OWNED,
        "type": _T,
        "project": _T,
        "parent": _T,
        "comment": _T,
        "status": _T,
        "status_reason": _T,
        "status_message": _T,
        "status_changed": _W,
        "enqueue_status": _T,
        "started": _W,
        "completed": _W,
        "published": _W,
        "active_duration": _I,
        "last_update": _W,
        "last_change": _W,
        "last_worker": _T,
        "last_worker_report": _W,
        "last_iteration": _I,
        "output": _J,
        "execution": _J,
        "container": _J,
        "models": _J,
        "runtime": _J,
        "hyperparams": _J,
        "configuration": _J,
        "last_metrics": _J,
        "script": _J,
        "report": _T,
        "report_assets": _J,
    },
    frozenset({"name", "comment", "report"}),
    unused=frozenset(
        {"company_origin", "error", "last_changed_by", "metric_stats", "project_name", "status_code", "unique_metrics"}
    ),
)
PROJECTS = TableSchema(
    "projects",
    {
        **_OWNED,
        "basename": _T,
        "description": _T,
        "parent": _T,
        "path": _J,
        "default_output_destination": _T,
        "last_update": _W,
    },
    frozenset({"name", "basename", "description"}),
    unused=frozenset(
        {"company_origin", "dataset_stats", "featured", "logo_blob", "own_models", "own_tasks", "stats", "sub_projects"}
    ),
)
QUEUES = TableSchema("queues", {**_OWNED, "display_name": _T, "metadata": _J, "last_update": _W})
MODELS = TableSchema(
    "models",
    {
        **_OWNED,
        "uri": _T,
        "project": _T,
        "task": _T,
        "parent": _T,
        "framework": _T,
        "comment": _T,
        "ready": _B,
        "last_iteration": _I,
        "last_update": _W,
        "last_change": _W,
        "design": _J,
        "labels": _J,
        "metadata": _J,
        "ui_cache": _J,
        "last_metrics": _J,
    },
    frozenset({"name", "comment"}),
    unused=frozenset({"company_origin", "last_changed_by", "metric_stats", "stats", "unique_metrics"}),
)
WORKERS = TableSchema(
    "workers",
    {
        "id": _T,
        "user": _T,
        "made_by": _T,
        "company": _T,
        "ip": _T,
        "register_time": _W,
        "register_timeout": _I,
        "last_activity_time": _W,
        "last_report_time": _W,
        "task": _T,
        "queue": _T,
        "queues": _J,
        "tags": _J,
        "system_tags": _J,
        "machine_stats": _J,
        "runtime_properties": _J,
    },
)

USERS = TableSchema(
    "users",
    {**_OWNED, "role": _T, "email": _T, "preferences": _J},
    frozenset({"name", "email"}),
    frozenset({"made_by", "preferences"}),
    unused=frozenset({"avatar", "family_name", "given_name", "providers"}),
)

DOCUMENTS = (TASKS, PROJECTS, QUEUES, MODELS, WORKERS, USERS)

REST = """
CREATE INDEX IF NOT EXISTS tasks_by_status ON tasks (status, last_update);
CREATE INDEX IF NOT EXISTS tasks_by_project ON tasks (project, last_update);
CREATE INDEX IF NOT EXISTS tasks_by_last_update ON tasks (last_update);
CREATE INDEX IF NOT EXISTS tasks_by_parent ON tasks (parent);
CREATE UNIQUE INDEX IF NOT EXISTS projects_by_name ON projects (name);
CREATE INDEX IF NOT EXISTS models_by_task ON models (task);
CREATE INDEX IF NOT EXISTS models_by_project ON models (project);

CREATE TABLE IF NOT EXISTS queue_entries (
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    added TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (queue, task)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS queue_entries_by_position ON queue_entries (queue, position);
CREATE INDEX IF NOT EXISTS queue_entries_by_task ON queue_entries (task);

CREATE TABLE IF NOT EXISTS credentials (
    access_key TEXT PRIMARY KEY NOT NULL,
    secret_hash TEXT NOT NULL,
    user TEXT NOT NULL,
    task TEXT NOT NULL,
    label TEXT NOT NULL,
    created TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS credentials_by_user ON credentials (user);
CREATE INDEX IF NOT EXISTS credentials_by_task ON credentials (task);

CREATE TABLE IF NOT EXISTS sessions (
    cookie_hash TEXT PRIMARY KEY NOT NULL,
    access_key TEXT NOT NULL,
    user TEXT NOT NULL,
    expires TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY NOT NULL,
    user TEXT NOT NULL,
    task TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS worker_usage (
    worker TEXT NOT NULL,
    moment INTEGER NOT NULL,
    task TEXT NOT NULL,
    stats TEXT NOT NULL,
    PRIMARY KEY (worker, moment)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS worker_usage_by_moment ON worker_usage (moment);

CREATE TABLE IF NOT EXISTS queue_history (
    queue TEXT NOT NULL,
    moment INTEGER NOT NULL,
    length INTEGER NOT NULL,
    waited_s REAL NOT NULL,
    PRIMARY KEY (queue, moment)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS queue_history_by_moment ON queue_history (moment);

CREATE TABLE IF NOT EXISTS console (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    level TEXT NOT NULL,
    worker TEXT NOT NULL,
    msg TEXT NOT NULL,
    metric TEXT,
    variant TEXT,
    iter INTEGER
);
CREATE INDEX IF NOT EXISTS console_by_time ON console (task, timestamp, id);
CREATE INDEX IF NOT EXISTS console_by_arrival ON console (task);

CREATE TABLE IF NOT EXISTS scalar_series (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    metric TEXT NOT NULL,
    variant TEXT NOT NULL,
    worker TEXT NOT NULL,
    x_axis_label TEXT,
    UNIQUE (task, metric, variant)
);

CREATE TABLE IF NOT EXISTS scalar_points (
    series INTEGER NOT NULL,
    iter INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    value REAL,
    PRIMARY KEY (series, iter)
) WITHOUT ROWID;

CREATE VIEW IF NOT EXISTS scalars AS
SELECT s.task, s.metric, s.variant, p.iter, p.timestamp, p.value, s.worker
FROM scalar_series s JOIN scalar_points p ON p.series = s.id;

CREATE TABLE IF NOT EXISTS reports (
    task TEXT NOT NULL,
    type TEXT NOT NULL,
    metric TEXT NOT NULL,
    variant TEXT NOT NULL,
    iter INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (task, type, metric, variant, iter)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS images_by_url ON reports (task, metric, variant, json_extract(body, '$.url'))
WHERE type = 'training_debug_image';
"""

ADDED_COLUMNS = {
    "console": {"metric": "TEXT", "variant": "TEXT", "iter": "INTEGER"},
    "scalar_series": {"x_axis_label": "TEXT"},
}
"""Columns of tables in ``REST`` that databases of earlier versions lack."""
