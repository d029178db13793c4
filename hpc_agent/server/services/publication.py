"""Publication of tasks, with the models that they made."""

from __future__ import annotations

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Answer, Call
from hpc_agent.server.authorization import owns
from hpc_agent.server.roles import OwnerKind
from hpc_agent.server.services.transitions import change_status
from hpc_agent.server.store.documents import Document, models


def publish_task(
    call: Call, task: Document, *, force: bool = False, with_models: bool = True, reason: str = "", message: str = ""
) -> Answer:
    """Set a task published. ``task`` has ``id``, ``status`` and ``models``.

    Raises:
        ApiFault: 400/110, its status does not allow it.
    """
    new = TaskStatus.PUBLISHED
    also = {"published": call.time}
    answer = change_status(call, task, new, force=force, reason=reason, message=message, also=also)
    outputs = (task.get("models", {}).get("output") or []) if with_models else []
    for id in (str(item.get("model")) for item in outputs):
        if owns(call, OwnerKind.MODEL, id):
            models.update(call.db, id, {"ready": True, "last_update": call.time, "last_change": call.time})
    return answer
