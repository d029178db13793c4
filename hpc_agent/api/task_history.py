"""Tasks that have ended, with what is known of their runs; read page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from hpc_agent.api.answer import rows
from hpc_agent.api.session import ApiSession
from hpc_agent.domain.ids import QueueId
from hpc_agent.errors import ApiError
from hpc_agent.logs import EventLog
from hpc_agent.wire.ended_task import EndedTask, ended_query, ended_task_from_wire

log = EventLog("history")

_PAGE = 500
"""What the reference server gives at most in one answer."""


def ended_tasks(session: ApiSession, since: datetime, queue: QueueId | None = None) -> Iterator[list[EndedTask]]:
    """Pages of the tasks whose status became final at or after ``since``, the newest first.

    Raises:
        ApiError, ServerUnreachableError: as for any call.
    """
    query = ended_query(since, queue)
    page = 0
    while True:
        found = rows(session.call("tasks.get_all", {**query, "page": page, "page_size": _PAGE}), "tasks")
        tasks = [task for row in found if (task := ended_task_from_wire(row))]
        # A server that does not know the filter gives tasks of all queues.
        yield [task for task in tasks if queue is None or task.queue == queue]
        if len(found) < _PAGE:
            return
        page += 1


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
