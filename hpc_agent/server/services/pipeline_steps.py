"""A pipeline's run and the tasks of its steps, for calls with ``include_pipeline_steps``."""

from __future__ import annotations

from hpc_agent.server.action import Call, unique
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.authorization import owns
from hpc_agent.server.roles import OwnerKind
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Document, tasks
from hpc_agent.server.store.query import Query
from hpc_agent.wire.error_kinds import NO_PERMISSION

CONTROLLER = "controller"
"""Type of the task that is a pipeline's run; its children are the steps."""
RUN_FIELDS = ("type", "status", "project", "system_tags", "models", "execution")
"""What is read of a run and its steps before they are deleted."""


def steps_of(call: Call, run: Document) -> list[Document]:
    """The steps of a run, which has ``type`` and ``project``; none where the task is not a run.

    A copy of the run in the same project is the pipeline's next run and no step, though the run is its parent.

    Raises:
        ApiFault: 403/20, a step is another user's.
    """
    if run.get("type") != CONTROLLER:
        return []
    children = Query((q.compare(q.field(tasks.table, "parent"), "=", run["id"]),), fields=RUN_FIELDS)
    steps = [child for child in tasks.find(call.db, children) if not _is_another_run(child, run)]
    if foreign := next((step["id"] for step in steps if not owns(call, OwnerKind.TASK, step["id"])), None):
        raise ApiFault(NO_PERMISSION, "a step of the pipeline is another user's", task=foreign)
    return steps


def _is_another_run(task: Document, run: Document) -> bool:
    return task.get("type") == CONTROLLER and task.get("project") == run.get("project")


def with_steps(call: Call, ids: list[str], *, include: bool) -> list[str]:
    """The ids, with ``include`` followed by those of the steps of each that is a pipeline's run.

    Raises:
        ApiFault: as ``steps_of``.
    """
    found: list[str] = []
    for id in ids:
        run = tasks.get(call.db, id, ("type", "project")) if include else None
        found += [id, *(step["id"] for step in (steps_of(call, run) if run else []))]
    return unique(found)
