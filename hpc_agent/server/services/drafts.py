"""A new task, as ``tasks.create`` and ``tasks.clone`` make it."""

from __future__ import annotations

from typing import Any

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Call
from hpc_agent.server.api_fault import invalid
from hpc_agent.server.new_ids import new_id
from hpc_agent.server.store.documents import Document, projects, tasks


def insert_task(call: Call, **fields: Any) -> str:
    """Add a draft with every field that clients expect to find; returns its id.

    See docs/internals/clearml-protocol.md#task-object.
    """
    if not str(fields["name"]).strip():
        raise invalid("a task needs a name")
    task: Document = {
        "id": new_id(),
        **call.owner,
        "created": call.time,
        "last_update": call.time,
        "last_change": call.time,
        "status": TaskStatus.CREATED.value,
        "status_changed": call.time,
        "status_reason": "",
        "status_message": "",
        "comment": "",
        "last_iteration": 0,
        "last_metrics": {},
        "tags": [],
        "system_tags": [],
        "output": {},
        "execution": {},
        "container": {},
        "models": {"input": [], "output": []},
        "script": {},
        "hyperparams": {},
        "configuration": {},
        "runtime": {},
        **fields,
    }
    tasks.insert(call.db, task)
    if task.get("project"):
        projects.update(call.db, task["project"], {"last_update": call.time})
    return str(task["id"])
