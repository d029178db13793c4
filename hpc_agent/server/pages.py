"""HTML pages: the list of tasks, and one task at the link that ``clearml-task`` and the SDK print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader

from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.store import event_store, queue_rows
from hpc_agent.server.store import query as q
from hpc_agent.server.store.connection import DocumentStore, StoreSession
from hpc_agent.server.store.documents import Document, projects, queues, tasks
from hpc_agent.server.store.event_store import ConsolePlace
from hpc_agent.server.store.query import Query
from hpc_agent.wire.error_kinds import ErrorKind

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}

_NO_SUCH_TASK = ErrorKind(404, 0, "There is no such task")
_PER_PAGE = 100
_MOST_QUEUES = 500
_LONG_NAME = 500
_PIECES = 100
"""Parts of a template that are sent together."""
_SHOWN = (
    "name",
    "project",
    "status",
    "status_reason",
    "status_message",
    "type",
    "last_worker",
    "created",
    "started",
    "completed",
    "tags",
    "comment",
    "script",
    "container",
    "execution",
    "hyperparams",
)
_LONG_CONSOLE = 1_200_000
"""Characters of the console after which a page ends."""
_MOST_CHUNKS = 5000
_MOST_PARAMETERS = 1000
_LONG_FIELD = 20_000
_LONG_SOURCE = 500_000
"""Characters shown of a field, and of a script: the API has the rest."""
_LIVE = frozenset({"queued", "in_progress"})
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Pages:
    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._templates = Environment(
            loader=PackageLoader("hpc_agent.server", "templates"),
            autoescape=True,
            undefined=ChainableUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def _page(self, template: str, **values: Any) -> Iterator[str]:
        """The page in pieces: it is sent while it is made."""
        stream = self._templates.get_template(template).stream(**values)
        stream.enable_buffering(_PIECES)
        return stream

    def index(self, page: str) -> Iterator[str]:
        """The newest tasks and all queues.

        Raises:
            ApiFault: 400/12, ``page`` is not a number.
        """
        if not page.isdecimal() or len(page) > 9:
            raise invalid("page must be a number")
        fields = ("name", "project", "status", "created", "last_update", "type")
        query = Query(order_by=("-last_update",), fields=fields, limit=_PER_PAGE + 1, offset=int(page) * _PER_PAGE)
        with self._store.read() as db:
            found = tasks.find(db, query)
            names = _names(db, {task["project"] for task in found if "project" in task})
            waiting = [
                {"name": queue["name"][:_LONG_NAME], "entries": queue_rows.count(db, queue["id"])}
                for queue in queues.find(db, Query(order_by=("name",), fields=("name",), limit=_MOST_QUEUES))
            ]
        return self._page(
            "index.html",
            tasks=shortened(found[:_PER_PAGE], _LONG_NAME),
            projects=names,
            queues=waiting,
            page=int(page),
            more=len(found) > _PER_PAGE,
        )

    def task(self, id: str, before: str) -> Iterator[str]:
        """One task with the newest of its console, or what was there before a place in it.

        Raises:
            ApiFault: 404, or 400/12, ``before`` is not a place in a console.
        """
        place = _place(before)
        with self._store.read() as db:
            task = tasks.get(db, id, _SHOWN)
            if task is None:
                raise ApiFault(_NO_SUCH_TASK, id=id[:64])
            console = event_store.console_before(db, id, place, characters=_LONG_CONSOLE, most=_MOST_CHUNKS)
            project = _names(db, {task["project"]}) if "project" in task else {}
            queue = queues.get(db, task.get("execution", {}).get("queue") or "", ("name",))
        return self._page(
            "task.html",
            task=shortened(task, _LONG_SOURCE),
            project=project.get(task.get("project", ""), ""),
            queue=queue["name"] if queue else "",
            console=console_text(console.messages[::-1]),
            earlier=console.earlier,
            live=task["status"] in _LIVE and not before,
            parameters=list(islice(_parameters(task), _MOST_PARAMETERS)),
        )


def _place(text: str) -> ConsolePlace | None:
    """``1700000000000-17``, as the page's own link has it, or a time in milliseconds alone."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", text, re.ASCII)
    if match is None:
        raise invalid("before must be a time in milliseconds")
    return ConsolePlace(int(match[1]), int(match[2] or 0))


def shortened(value: Any, longest: int) -> Any:
    """The value with every text in it cut to so many characters, and every list to so many items."""
    if isinstance(value, str):
        return value if len(value) <= longest else value[:longest] + " …"
    if isinstance(value, dict):
        return {key: shortened(item, longest) for key, item in value.items()}
    if isinstance(value, list):
        return [shortened(item, longest) for item in value[:longest]]
    return value


def _names(db: StoreSession, ids: set[str]) -> dict[str, str]:
    found = projects.find(db, Query((q.one_of(q.field(projects.table, "id"), sorted(ids)),), fields=("name",)))
    return {project["id"]: project["name"][:_LONG_NAME] for project in found}


def _parameters(task: Document) -> Iterator[tuple[str, str, str]]:
    for section, items in sorted(task.get("hyperparams", {}).items()):
        for name, item in sorted(items.items()):
            yield section[:_LONG_FIELD], name[:_LONG_FIELD], str(item.get("value", ""))[:_LONG_FIELD]


def console_text(messages: list[str]) -> str:
    """Console chunks as plain lines: without terminal control codes, and only the last state of a rewritten line."""
    text = "".join(message if message.endswith("\n") else message + "\n" for message in messages)
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in _ESCAPES.sub("", text).split("\n"))
    return _CONTROLS.sub("", "\n".join(lines))
