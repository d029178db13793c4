"""``queues.*``: the order of the tasks in a queue."""

from __future__ import annotations

from hpc_agent.server.action import Access, Answer, Call, Service
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.services.queues import EntryRequest
from hpc_agent.server.store import queue_rows
from hpc_agent.wire.error_kinds import TASK_NOT_IN_QUEUE

service = Service("queues")


class MoveRequest(EntryRequest, frozen=True):
    count: int = 1


def _move(request: EntryRequest, call: Call, by: int | None, *, to: int = 0) -> Answer:
    """``by`` places towards the back (negative: the front), or to the place ``to`` (-1: the last)."""
    order = [entry.task for entry in queue_rows.of_queue(call.db, request.queue)]
    if request.task not in order:
        raise ApiFault(TASK_NOT_IN_QUEUE, task=request.task, id=request.queue)
    place = order.index(request.task)
    last = len(order) - 1
    new_place = to % len(order) if by is None else max(0, min(last, place + by))
    order.insert(new_place, order.pop(place))
    queue_rows.reorder(call.db, request.queue, order)
    return {"position": new_place}


@service.action(MoveRequest, Access.WRITE)
def move_task_forward(request: MoveRequest, call: Call) -> Answer:
    """Move an entry towards the head of its queue."""
    return _move(request, call, -request.count)


@service.action(MoveRequest, Access.WRITE)
def move_task_backward(request: MoveRequest, call: Call) -> Answer:
    """Move an entry towards the end of its queue."""
    return _move(request, call, request.count)


@service.action(EntryRequest, Access.WRITE)
def move_task_to_front(request: EntryRequest, call: Call) -> Answer:
    """Move an entry to the head of its queue."""
    return _move(request, call, None)


@service.action(EntryRequest, Access.WRITE)
def move_task_to_back(request: EntryRequest, call: Call) -> Answer:
    """Move an entry to the end of its queue."""
    return _move(request, call, None, to=-1)
