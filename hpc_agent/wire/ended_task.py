"""A task that has ended, as ``tasks.get_all`` shows it to those who look back on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import msgspec

from hpc_agent.domain.ids import QueueId, TaskId, is_id
from hpc_agent.wire.task_state import JOB_ID

_FIELDS = (
    *("id", "name", "user", "status", "started", "completed", "execution.queue", f"runtime.{JOB_ID}"),
    "hyperparams.properties",
)


class EndedTask(msgspec.Struct, frozen=True):
    """A task that ran to an end of whatever kind."""

    id: TaskId
    name: str
    user: str
    """Id."""
    queue: str
    """Id of the queue that it came from; empty for one that was never in a queue."""
    status: str
    job: str = ""
    """Scheduler's id of its last job; empty where it had none."""
    started: datetime | None = None
    completed: datetime | None = None
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)


def ended_query(since: datetime, queue: QueueId | None) -> dict[str, Any]:
    """``tasks.get_all``: tasks whose status became final at or after ``since``, the newest first, without a page."""
    return {
        "status": ["completed", "failed", "stopped", "closed", "published"],
        "status_changed": [f">={since.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}"],
        "only_fields": list(_FIELDS),
        "order_by": ["-status_changed"],
        "search_hidden": True,
        **({"execution.queue": [queue]} if queue else {}),
    }


def ended_task_from_wire(row: Mapping[str, Any]) -> EndedTask | None:
    """None for a row without an id."""
    if not is_id(row.get("id")):
        return None
    parameters = _part(_part(row, "hyperparams"), "properties")
    return EndedTask(
        id=TaskId(str(row["id"])),
        name=str(row.get("name") or ""),
        user=str(row.get("user") or ""),
        queue=str(_part(row, "execution").get("queue") or ""),
        status=str(row.get("status") or ""),
        job=str(_part(row, "runtime").get(JOB_ID) or ""),
        started=_time(row.get("started")),
        completed=_time(row.get("completed")),
        properties={name: str(_part(parameters, name).get("value") or "") for name in parameters},
    )


def _part(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = row.get(name)
    return found if isinstance(found, Mapping) else {}


def _time(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)
