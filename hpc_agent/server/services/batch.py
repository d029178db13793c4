"""Calls about many objects: what works for one is kept, what fails for another is reported next to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpc_agent.server.action import Answer, Call, Json, unique
from hpc_agent.server.api_fault import ApiFault


def for_each(call: Call, ids: Sequence[str], act: Callable[[str], Json]) -> Answer:
    """``{succeeded: [{id, …}], failed: [{id, error: {codes, msg, data}}]}``; a failed one leaves no trace."""
    succeeded: list[Json] = []
    failed: list[Json] = []
    for id in unique(list(ids)):
        try:
            with call.db.attempt():
                succeeded.append({"id": id, **act(id)})
        except ApiFault as fault:
            error = {"codes": list(fault.kind.numbers), "msg": str(fault), "data": fault.data}
            failed.append({"id": id, "error": error})
    return {"succeeded": succeeded, "failed": failed}
