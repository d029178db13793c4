"""Queues with what waits in them, in order; and what a person does with a queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.responses import Response

from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.page.page_request import Json, PageRequest, Undo, done

_MOST_ENTRIES = 200
"""Shown of one queue."""


def show_queues(page: PageRequest) -> Response:
    """All queues, each with its entries and the workers that serve it."""
    queues = page.calls.listed("queues", order_by=["name"])
    waiting = {queue["id"]: queue.get("entries") or [] for queue in queues}
    shown = [entry["task"] for entries in waiting.values() for entry in entries[:_MOST_ENTRIES]]
    tasks: dict[str, Json] = {}
    for start in range(0, len(shown), 500):
        fields = ["name", "user", "status_message", "project"]
        ids = shown[start : start + 500]
        tasks |= {t["id"]: t for t in page.calls.listed("tasks", id=ids, only_fields=fields, search_hidden=True)}
    workers = page.calls("workers.get_all")["workers"]
    values: Json = {
        "users": page.calls.names("users", (task.get("user") for task in tasks.values())),
        "queues": [
            {
                **queue,
                "total": len(waiting[queue["id"]]),
                "entries": [
                    {**entry, "about": tasks.get(entry["task"], {"id": entry["task"], "name": entry["task"]})}
                    for entry in waiting[queue["id"]][:_MOST_ENTRIES]
                ],
                "workers": [w["id"] for w in workers if queue["id"] in [served["id"] for served in w["queues"]]],
            }
            for queue in queues
        ],
    }
    template = "parts/queue_list.html" if page.fragment and page.asked("part") == "list" else "queues.html"
    return page.render(template, **values)


def run_queue_action(page: PageRequest) -> Response:
    """Move or remove an entry, make, rename or delete a queue."""
    action = _ACTIONS.get(page.path["action"])
    if action is None:
        raise invalid(f"there is no action {page.path['action'][:40]}")
    return action(page)


def _create(page: PageRequest) -> Response:
    name = page.sent("name").strip()
    if not name:
        raise invalid("a queue needs a name")
    page.calls("queues.create", name=name)
    return done(f"Queue {name} created.")


def _delete(page: PageRequest) -> Response:
    page.calls("queues.delete", queue=page.sent("queue"))
    return done("Queue deleted.")


def _mover(action: str) -> Callable[[PageRequest], Response]:
    def move(page: PageRequest) -> Response:
        page.calls(f"queues.{action}", queue=page.sent("queue"), task=page.sent("task"))
        return done("Order changed.")

    return move


def _remove(page: PageRequest) -> Response:
    queue, task = page.sent("queue"), page.sent("task")
    order = [entry["task"] for entry in page.calls("queues.get_by_id", queue=queue)["queue"]["entries"]]
    page.calls("tasks.dequeue", task=task)
    place = order.index(task) if task in order else len(order)
    name = page.calls.names("tasks", [task]).get(task, task)
    undo = Undo("/queues/actions/put_back", {"queue": [queue], "task": [task], "place": [str(place)]})
    return done(f"“{name[:80]}” taken off the queue.", undo)


def _put_back(page: PageRequest) -> Response:
    """Enqueue at the place where the task was."""
    queue, task, place = page.sent("queue"), page.sent("task"), page.sent("place", "0")
    page.calls("tasks.enqueue", task=task, queue=queue)
    if place.isdecimal() and len(place) < 9:
        try:
            page.calls("queues.move_task_to_front", queue=queue, task=task)
            if int(place):
                page.calls("queues.move_task_backward", queue=queue, task=task, count=int(place))
        except ApiFault:
            # A daemon was faster, or others own the queue: the task is enqueued all the same.
            return done("Enqueued again, at the end of the queue.")
    return done("Enqueued again, at its former place.")


_ACTIONS: Mapping[str, Callable[[PageRequest], Response]] = {
    "create": _create,
    "delete": _delete,
    "front": _mover("move_task_to_front"),
    "forward": _mover("move_task_forward"),
    "backward": _mover("move_task_backward"),
    "back": _mover("move_task_to_back"),
    "remove": _remove,
    "put_back": _put_back,
}
