"""Changes of a task's status, in the transaction of the call.

See docs/internals/clearml-protocol.md#status-transitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hpc_agent.domain.status import TaskStatus, may_follow
from hpc_agent.server.action import Answer, Transaction
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.store.documents import Document, tasks
from hpc_agent.wire.error_kinds import INVALID_TASK_ID, INVALID_TASK_STATUS


def existing_task(at: Transaction, task: str, fields: Iterable[str] = ()) -> Document:
    """
    Raises:
        ApiFault: 400/101.
    """
    found = tasks.get(at.db, task, fields)
    if found is None:
        raise ApiFault(INVALID_TASK_ID, id=task)
    return found


def change_status(
    at: Transaction,
    task: Document,
    new: TaskStatus,
    *,
    force: bool = False,
    reason: str = "",
    message: str = "",
    also: Mapping[str, Any] | None = None,
) -> Answer:
    """Set the status, its reason and message, and the fields in ``also``. ``task`` must hold ``id`` and ``status``.

    Reason and message are overwritten even when none are given, as on the reference server.

    Raises:
        ApiFault: 400/110, the status may not follow the present one.
    """
    old = TaskStatus(task["status"])
    if not force and not may_follow(old, new):
        raise ApiFault(
            INVALID_TASK_STATUS,
            f"a task that is {old.value} cannot become {new.value}",
            task=task["id"],
            current_status=old.value,
            new_status=new.value,
        )
    fields = {
        "status": new.value,
        "status_reason": reason,
        "status_message": message,
        "status_changed": at.time,
        "last_update": at.time,
        "last_change": at.time,
        **(also or {}),
    }
    return {"updated": tasks.update(at.db, task["id"], fields), "fields": fields}
