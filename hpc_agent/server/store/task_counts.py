"""Numbers of tasks by project and status."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_agent.server.store.connection import StoreSession


@dataclass(frozen=True)
class TaskCount:
    project: str
    status: str
    tasks: int
    last_update: str


def by_project_and_status(db: StoreSession) -> list[TaskCount]:
    """Of all tasks that are neither archived nor hidden."""
    rows = db.rows(
        "SELECT coalesce(project, ''), status, count(*), max(last_update) FROM tasks "
        "WHERE system_tags NOT LIKE '%\"archived\"%' AND system_tags NOT LIKE '%\"hidden\"%' "
        "GROUP BY project, status"
    )
    return [TaskCount(*row) for row in rows]
