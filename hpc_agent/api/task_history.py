"""Tasks that have ended, with what is known of their runs; read page by page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from hpc_agent.api.answer import rows
from hpc_agent.api.session import ApiSession
from hpc_agent.domain.ids import QueueId, TaskId, is_id
from hpc_agent.errors import ApiError
from hpc_agent.logs import EventLog
from hpc_agent.wire.task_state import JOB_ID

log = EventLog("history")

_PAGE = 500
"""What the reference server gives at most in one answer."""
_FIELDS = (
    *("id", "name", "user", "status", "started", "completed", "execution.queue", f"runtime.{JOB_ID}"),
    "hyperparams.properties",
)


@dataclass(frozen=True)
class EndedTask:
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
    properties: Mapping[str, str] = field(default_factory=dict)


def ended_tasks(session: ApiSession, since: datetime, queue: QueueId | None = None) -> Iterator[list[EndedTask]]:
    """Pages of the tasks whose status became final at or after ``since``, the newest first.

    Raises:
        ApiError, ServerUnreachableError: as for any call.
    """
    query: dict[str, Any] = {
        "status": ["completed", "failed", "stopped", "closed", "published"],
        "status_changed": [f">={since.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}"],
        "only_fields": list(_FIELDS),
        "order_by": ["-status_changed"],
        "search_hidden": True,
        "page_size": _PAGE,
        **({"execution.queue": [queue]} if queue else {}),
    }
    page = 0
    while True:
        found = rows(session.call("tasks.get_all", {**query, "page": page}), "tasks")
        tasks = [_task(row) for row in found if is_id(row.get("id"))]
        # A server that does not know the filter gives tasks of all queues.
        yield [task for task in tasks if queue is None or task.queue == queue]
        if len(found) < _PAGE:
            return
        page += 1


def _task(row: Mapping[str, Any]) -> EndedTask:
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


def names_of(session: ApiSession, endpoint: str, ids: Sequence[str]) -> dict[str, str]:
    """Id → name of users (``users.get_all``) or queues (``queues.get_all``); those without an answer are left out."""
    wanted = sorted({id for id in ids if id})
    if not wanted:
        return {}
    kind = endpoint.partition(".")[0]
    query = {"id": wanted, "only_fields": ["id", "name"], "search_hidden": True, "page": 0, "page_size": _PAGE}
    try:
        found = rows(session.call(endpoint, query), kind)
    except ApiError as error:
        # Some servers let administrators alone read the list of users.
        log.debug("names.refused", endpoint=endpoint, error=error)
        return {}
    return {str(row.get("id")): str(row.get("name") or row.get("id")) for row in found}
