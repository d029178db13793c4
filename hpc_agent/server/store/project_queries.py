"""Figures and distinct values of the tasks and models in projects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from hpc_agent.server.store import query as q
from hpc_agent.server.store.connection import StoreSession
from hpc_agent.server.store.documents import Collection
from hpc_agent.server.store.query import Condition


def _in(column: str, values: Sequence[str]) -> Condition:
    listed = msgspec.json.encode(list(values)).decode()
    return Condition(f"{column} IN (SELECT value FROM json_each(?))", (listed,))


def in_projects(collection: Collection, projects: Sequence[str] | None) -> Condition:
    """Documents of these projects; of all where None."""
    return Condition("1") if projects is None else _in(f"{collection.table.name}.project", projects)


@dataclass
class ProjectFigures:
    """Of the tasks of one project in one state, active or archived."""

    total: int = 0
    runtime_s: int = 0
    completed_lately: int = 0
    last_run: str | None = None
    statuses: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, other: ProjectFigures) -> None:
        self.total += other.total
        self.runtime_s += other.runtime_s
        self.completed_lately += other.completed_lately
        self.last_run = max(filter(None, (self.last_run, other.last_run)), default=None)
        for status, count in other.statuses.items():
            self.statuses[status] += count


def task_figures(db: StoreSession, conditions: Sequence[Condition], since: str) -> dict[str, dict[str, ProjectFigures]]:
    """``{project: {"active" | "archived": figures}}`` of the tasks that match; ``since``: what counts as lately."""
    where = q.all_of(conditions)
    found: dict[str, dict[str, ProjectFigures]] = defaultdict(lambda: defaultdict(ProjectFigures))
    for project, archived, status, count, runtime, lately, last in db.rows(
        "SELECT project, EXISTS (SELECT 1 FROM json_each(tasks.system_tags) WHERE value = 'archived'), status,"
        " count(*),"
        " sum(CASE WHEN completed > started THEN (julianday(completed) - julianday(started)) * 86400 ELSE 0 END),"
        " sum(completed >= ? AND status NOT IN ('created', 'queued', 'in_progress')), max(started)"
        f" FROM tasks WHERE {where.sql} GROUP BY 1, 2, 3",
        (since, *where.parameters),
    ):
        figures = found[project]["archived" if archived else "active"]
        one = ProjectFigures(count, round(runtime or 0), lately or 0, last)
        one.statuses[status] = count
        figures.add(one)
    return found


def dataset_size(db: StoreSession, project: str) -> dict[str, int] | None:
    """Files and bytes of the newest version of a data set, as the SDK notes them in the task's runtime properties."""
    row = db.row(
        "SELECT json_extract(runtime, '$.ds_file_count'), json_extract(runtime, '$.ds_total_size') FROM tasks"
        " WHERE project = ? AND json_extract(runtime, '$.ds_total_size') IS NOT NULL ORDER BY last_update DESC LIMIT 1",
        (project,),
    )
    return None if row is None else {"file_count": row[0], "total_size": row[1]}


def count_by_project(db: StoreSession, collection: Collection, conditions: Sequence[Condition]) -> dict[str, int]:
    where = q.all_of(conditions)
    rows = db.rows(
        f"SELECT project, count(*) FROM {collection.table.name} WHERE {where.sql} GROUP BY project", where.parameters
    )
    return {row[0]: row[1] for row in rows if row[0]}


def distinct(
    db: StoreSession, collection: Collection, column: str, conditions: Sequence[Condition], limit: int = 10_000
) -> list[str]:
    """The values of a text column, in order."""
    where = q.all_of(conditions)
    value = q.field(collection.table, column)
    rows = db.rows(
        f"SELECT DISTINCT {value.sql} FROM {collection.table.name} WHERE {where.sql} AND {value.sql} != '' "
        "ORDER BY 1 LIMIT ?",
        (*value.parameters, *where.parameters, *value.parameters, limit),
    )
    return [str(row[0]) for row in rows]


def distinct_elements(
    db: StoreSession, collection: Collection, column: str, conditions: Sequence[Condition], limit: int = 10_000
) -> list[str]:
    """The elements of a list column, in order."""
    where = q.all_of(conditions)
    name = collection.table.name
    rows = db.rows(
        f"SELECT DISTINCT element.value FROM {name}, json_each({name}.{column}) AS element WHERE {where.sql} "
        "ORDER BY 1 LIMIT ?",
        (*where.parameters, limit),
    )
    return [str(row[0]) for row in rows]


def parameter_names(db: StoreSession, conditions: Sequence[Condition], limit: int) -> list[tuple[str, str]]:
    """Sections and names of the hyper-parameters of tasks."""
    where = q.all_of(conditions)
    rows = db.rows(
        "SELECT DISTINCT section.key, parameter.key FROM tasks, json_each(tasks.hyperparams) AS section, "
        f"json_each(section.value) AS parameter WHERE {where.sql} ORDER BY 1, 2 LIMIT ?",
        (*where.parameters, limit),
    )
    return [(row[0], row[1]) for row in rows]


def metric_names(
    db: StoreSession, collection: Collection, conditions: Sequence[Condition], limit: int
) -> list[tuple[str, str, str, str]]:
    """``(metric, its hash, variant, its hash)`` of the latest values of tasks."""
    where = q.all_of(conditions)
    name = collection.table.name
    rows = db.rows(
        "SELECT DISTINCT json_extract(variant.value, '$.metric'), metric.key,"
        " json_extract(variant.value, '$.variant'), variant.key"
        f" FROM {name}, json_each({name}.last_metrics) AS metric, json_each(metric.value) AS variant "
        f"WHERE {where.sql} ORDER BY 1, 3 LIMIT ?",
        (*where.parameters, limit),
    )
    return [(row[0] or "", row[1], row[2] or "", row[3]) for row in rows]


def keys(
    db: StoreSession, collection: Collection, column: str, conditions: Sequence[Condition], limit: int
) -> list[str]:
    """The names in an object column, in order."""
    where = q.all_of(conditions)
    name = collection.table.name
    rows = db.rows(
        f"SELECT DISTINCT entry.key FROM {name}, json_each({name}.{column}) AS entry WHERE {where.sql} "
        "ORDER BY 1 LIMIT ?",
        (*where.parameters, limit),
    )
    return [str(row[0]) for row in rows]
