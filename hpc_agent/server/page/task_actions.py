"""What the buttons of tasks do: each has a form that names the tasks, and some can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.page.page_request import Json, PageRequest, Undo, done
from hpc_agent.server.page.rendering import segment
from hpc_agent.wire.error_kinds import VALIDATION_ERROR

_MOST_TASKS = 500


@dataclass(frozen=True)
class TaskAction:
    """``fits``: statuses of tasks that it can be done with, none for all; ``asks``: it opens a dialog first."""

    title: str
    act: Callable[[PageRequest, list[Json]], Response]
    fits: frozenset[str] = frozenset()
    asks: bool = True
    danger: bool = False


def show_dialog(page: PageRequest) -> Response:
    """The form of an action, with the tasks that it is about."""
    name, action = _action(page)
    found = _tasks(page, page.query.get("id", ()))
    fitting = [task for task in found if not action.fits or task["status"] in action.fits]
    values: Json = {"name": name, "action": action, "tasks": fitting, "left_out": len(found) - len(fitting)}
    if name == "enqueue":
        values["queues"] = page.calls.listed("queues", only_fields=["name", "system_tags"], order_by=["name"])
    if name in ("clone", "move"):
        values["projects"] = page.calls.listed("projects", only_fields=["name"], order_by=["name"], search_hidden=False)
        values["project_names"] = page.calls.names("projects", [task.get("project") for task in fitting])
    return page.render("dialogs/task_action.html", **values)


def run_action(page: PageRequest) -> Response:
    """Do it with the tasks of the form. Of several those that fail are named, the others are done."""
    _, action = _action(page)
    tasks = _tasks(page, page.form.get("id", ()))
    if not tasks:
        raise invalid("no task is selected, or the tasks were deleted")
    return action.act(page, tasks)


def _action(page: PageRequest) -> tuple[str, TaskAction]:
    name = page.path["action"]
    if name not in ACTIONS:
        raise invalid(f"there is no action {name[:40]}")
    return name, ACTIONS[name]


def _tasks(page: PageRequest, ids: Sequence[str]) -> list[Json]:
    wanted = list(dict.fromkeys(ids))
    if len(wanted) > _MOST_TASKS:
        raise invalid(f"an action takes {_MOST_TASKS} tasks at most")
    if not wanted:
        return []
    fields = ["name", "status", "project", "tags", "execution.queue"]
    return page.calls.listed("tasks", id=wanted, only_fields=fields, search_hidden=True, page=0, page_size=_MOST_TASKS)


def _each(tasks: list[Json], act: Callable[[Json], object]) -> tuple[list[str], str]:
    """Ids of the tasks it worked with, and the first refusal as part of a notice.

    Raises:
        ApiFault: it worked with none.
    """
    succeeded: list[str] = []
    refusals: list[tuple[Json, ApiFault]] = []
    for task in tasks:
        try:
            act(task)
            succeeded.append(task["id"])
        except ApiFault as fault:
            refusals.append((task, fault))
    if refusals and not succeeded:
        raise refusals[0][1]
    refused = f" Refused for {len(refusals)}, {refusals[0][0]['name']} first: {refusals[0][1]}" if refusals else ""
    return succeeded, refused


def _count(ids: Sequence[str], tasks: list[Json]) -> str:
    if len(ids) == 1:
        return f"“{next(task['name'] for task in tasks if task['id'] == ids[0])[:80]}”"
    return f"{len(ids)} tasks"


def _enqueue(page: PageRequest, tasks: list[Json]) -> Response:
    queue = page.sent("queue")
    if not queue:
        raise ApiFault(VALIDATION_ERROR, "choose a queue")
    ids, refused = _each(tasks, lambda task: page.calls("tasks.enqueue", task=task["id"], queue=queue))
    name = page.calls.names("queues", [queue]).get(queue, queue)
    return done(f"{_count(ids, tasks)} enqueued on {name}.{refused}", Undo("/actions/dequeue", {"id": ids}))


def _dequeue(page: PageRequest, tasks: list[Json]) -> Response:
    ids, refused = _each(tasks, lambda task: page.calls("tasks.dequeue", task=task["id"]))
    queues = {(task.get("execution") or {}).get("queue") for task in tasks}
    undo = Undo("/actions/enqueue", {"id": ids, "queue": [str(next(iter(queues)))]}) if len(queues) == 1 else None
    return done(f"{_count(ids, tasks)} taken off the queue.{refused}", undo)


def _abort(page: PageRequest, tasks: list[Json]) -> Response:
    reason = f"Aborted on the web page by {page.user_name}"
    ids, refused = _each(tasks, lambda task: page.calls("tasks.stop", task=task["id"], status_reason=reason))
    return done(f"Abort of {_count(ids, tasks)} requested.{refused}")


def _reset(page: PageRequest, tasks: list[Json]) -> Response:
    ids, refused = _each(tasks, lambda task: page.calls("tasks.reset", task=task["id"]))
    return done(f"{_count(ids, tasks)} reset to a draft.{refused}")


def _archive(page: PageRequest, tasks: list[Json]) -> Response:
    ids, refused = _each(tasks, lambda task: page.calls("tasks.archive_many", ids=[task["id"]]))
    return done(f"{_count(ids, tasks)} archived.{refused}", Undo("/actions/unarchive", {"id": ids}))


def _unarchive(page: PageRequest, tasks: list[Json]) -> Response:
    ids, refused = _each(tasks, lambda task: page.calls("tasks.unarchive_many", ids=[task["id"]]))
    return done(f"{_count(ids, tasks)} brought back.{refused}", Undo("/actions/archive", {"id": ids}))


def _publish(page: PageRequest, tasks: list[Json]) -> Response:
    ids, refused = _each(tasks, lambda task: page.calls("tasks.publish", task=task["id"]))
    return done(f"{_count(ids, tasks)} published.{refused}")


def _delete(page: PageRequest, tasks: list[Json]) -> Response:
    ids, refused = _each(tasks, lambda task: page.calls("tasks.delete", task=task["id"], force=True))
    go = f"/projects/{segment(tasks[0].get('project') or '*')}/tasks" if page.sent("from") == "task" else ""
    return done(f"{_count(ids, tasks)} deleted.{refused}", go=go)


def _clone(page: PageRequest, tasks: list[Json]) -> Response:
    made: list[str] = []

    def clone(task: Json) -> None:
        wanted: dict[str, Any] = {"task": task["id"]}
        if len(tasks) == 1 and (name := page.sent("name").strip()):
            wanted["new_task_name"] = name
        if project := page.sent("project").strip():
            wanted["new_project_name"] = project
        made.append(page.calls("tasks.clone", **wanted)["id"])

    ids, refused = _each(tasks, clone)
    go = f"/projects/*/tasks/{segment(made[0])}/configuration" if len(made) == 1 else ""
    return done(f"{_count(ids, tasks)} cloned.{refused}", go=go)


def _move(page: PageRequest, tasks: list[Json]) -> Response:
    name = page.sent("project").strip()
    if not name:
        raise invalid("name a project")
    found = page.calls.listed("projects", only_fields=["name"], search_hidden=True)
    project = next((item["id"] for item in found if item["name"] == name), None)
    if project is None:
        project = page.calls("projects.create", name=name)["id"]
    ids, refused = _each(tasks, lambda task: page.calls("tasks.update", task=task["id"], project=project))
    return done(f"{_count(ids, tasks)} moved to {name}.{refused}")


def _tag(page: PageRequest, tasks: list[Json]) -> Response:
    added = {tag.strip() for tag in page.sent("add").split(",") if tag.strip()}
    removed = {tag.strip() for tag in page.sent("remove").split(",") if tag.strip()}
    if not added | removed:
        raise invalid("write a tag to add or to remove")

    def change(task: Json) -> None:
        tags = [tag for tag in task.get("tags") or [] if tag not in removed]
        page.calls("tasks.update", task=task["id"], tags=[*tags, *sorted(added - set(tags))])

    ids, refused = _each(tasks, change)
    undo = Undo("/actions/tag", {"id": ids, "add": [", ".join(removed)], "remove": [", ".join(added)]})
    return done(f"Tags of {_count(ids, tasks)} changed.{refused}", undo)


ACTIONS: Mapping[str, TaskAction] = {
    "enqueue": TaskAction("Enqueue", _enqueue, frozenset({"created", "stopped", "failed", "queued"})),
    "dequeue": TaskAction("Take off the queue", _dequeue, frozenset({"queued"}), asks=False),
    "abort": TaskAction("Abort", _abort, frozenset({"queued", "in_progress"}), danger=True),
    "clone": TaskAction("Clone", _clone),
    "reset": TaskAction(
        "Reset", _reset, frozenset({"stopped", "failed", "completed", "closed", "queued"}), danger=True
    ),
    "tag": TaskAction("Tags", _tag),
    "move": TaskAction("Move to project", _move),
    "publish": TaskAction("Publish", _publish, frozenset({"stopped", "failed", "completed", "closed"})),
    "archive": TaskAction("Archive", _archive, asks=False),
    "unarchive": TaskAction("Bring back", _unarchive, asks=False),
    "delete": TaskAction("Delete", _delete, danger=True),
}
