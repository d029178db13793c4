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
RUN_FIELDS = ("type", "status", "system_tags", "models", "execution")
"""What is read of a run and its steps before they are deleted."""


def steps_of(call: Call, run: Document) -> list[Document]:
    """The steps of a run, which has ``type``; none where the task is not a run."""
    if run.get("type") != CONTROLLER:
        return []
    return tasks.find(call.db, Query((q.compare(q.field(tasks.table, "parent"), "=", run["id"]),), fields=RUN_FIELDS))


def with_steps(call: Call, ids: list[str], *, include: bool) -> list[str]:
    """The ids, with ``include`` followed by those of the steps of each that is a pipeline's run.

    Raises:
        ApiFault: 403/20, a step is another user's.
    """
    if not include:
        return unique(ids)
    found: list[str] = []
    for id in ids:
        run = tasks.get(call.db, id, ("type",))
        found += [id, *(step["id"] for step in (steps_of(call, run) if run else []))]
    if foreign := next((id for id in found if not owns(call, OwnerKind.TASK, id)), None):
        raise ApiFault(NO_PERMISSION, "a step of the pipeline is another user's", task=foreign)
    return unique(found)
