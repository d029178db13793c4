"""Two plain pages: all tasks, and one task at the link that ``clearml-task`` and the SDK print."""

from __future__ import annotations

import re

from jinja2 import ChainableUndefined, Environment, PackageLoader

from hpc_agent.server.fault import Fault, invalid
from hpc_agent.server.store import entries, events
from hpc_agent.server.store import query as q
from hpc_agent.server.store.connection import Session, Store
from hpc_agent.server.store.documents import Document, projects, queues, tasks
from hpc_agent.server.store.query import Query
from hpc_agent.wire.errors import ErrorKind

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}

_NO_SUCH_TASK = ErrorKind(404, 0, "There is no such task")
_PER_PAGE = 100
_CHUNKS = 20
"""Of the console, read at a time: one may be half a megabyte."""
_LONG_CONSOLE = 1024 * 1024
"""Characters after which a page ends; its last chunks are shown whole."""
_LIVE = frozenset({"queued", "in_progress"})
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Pages:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._templates = Environment(
            loader=PackageLoader("hpc_agent.server", "templates"),
            autoescape=True,
            undefined=ChainableUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def index(self, page: str) -> str:
        """The newest tasks and all queues.

        Raises:
            Fault: 400/12, ``page`` is no number.
        """
        if not page.isdecimal() or len(page) > 9:
            raise invalid("page must be a number")
        fields = ("name", "project", "status", "created", "last_update", "type")
        query = Query(order_by=("-last_update",), fields=fields, limit=_PER_PAGE + 1, offset=int(page) * _PER_PAGE)
        with self._store.read() as db:
            found = tasks.find(db, query)
            names = _names(db, {task["project"] for task in found if "project" in task})
            waiting = [
                {"name": queue["name"], "entries": entries.count(db, queue["id"])}
                for queue in queues.find(db, Query(order_by=("name",), fields=("name",)))
            ]
        return self._templates.get_template("index.html").render(
            tasks=found[:_PER_PAGE],
            projects=names,
            queues=waiting,
            page=int(page),
            more=len(found) > _PER_PAGE,
        )

    def task(self, id: str, before: str) -> str:
        """One task with the newest of its console, or what was there before a time in milliseconds.

        Raises:
            Fault: 404, or 400/12, ``before`` is no number.
        """
        if before and (not before.isdecimal() or len(before) > 18):
            raise invalid("before must be a time in milliseconds")
        with self._store.read() as db:
            task = tasks.get(db, id)
            if task is None:
                raise Fault(_NO_SUCH_TASK, id=id[:64])
            start = int(before) if before else None
            chunks, earlier = _newest(db, id, start)
            project = _names(db, {task["project"]}) if "project" in task else {}
            queue = queues.get(db, task.get("execution", {}).get("queue") or "", ("name",))
        return self._templates.get_template("task.html").render(
            task=task,
            project=project.get(task.get("project", ""), ""),
            queue=queue["name"] if queue else "",
            console=console_text([chunk.msg for chunk in reversed(chunks)]),
            earlier=earlier,
            live=task["status"] in _LIVE and not before,
            parameters=_parameters(task),
        )


def _newest(db: Session, task: str, before: int | None) -> tuple[list[events.Chunk], int | None]:
    """About as much of the console as a page shows, newest first, and the time before which there may be more."""
    found: list[events.Chunk] = []
    while True:
        some = events.chunks(db, task, earlier=True, start=before, limit=_CHUNKS)
        found += some
        if len(some) < _CHUNKS:
            return found, None
        before = some[-1].timestamp
        if sum(len(chunk.msg) for chunk in found) >= _LONG_CONSOLE:
            return found, before


def _names(db: Session, ids: set[str]) -> dict[str, str]:
    found = projects.find(db, Query((q.one_of(q.field(projects.table, "id"), sorted(ids)),), fields=("name",)))
    return {project["id"]: project["name"] for project in found}


def _parameters(task: Document) -> list[tuple[str, str, str]]:
    return [
        (section, name, str(item.get("value", "")))
        for section, items in sorted(task.get("hyperparams", {}).items())
        for name, item in sorted(items.items())
    ]


def console_text(messages: list[str]) -> str:
    """Chunks as lines for reading: no terminal control, of a line that was rewritten only what it said last."""
    text = "".join(message if message.endswith("\n") else message + "\n" for message in messages)
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in _ESCAPES.sub("", text).split("\n"))
    return _CONTROLS.sub("", "\n".join(lines))
