"""The console of a task: its newest lines, what comes after them, what was before, and a search in all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from starlette.responses import Response, StreamingResponse

from hpc_agent.server.api_fault import invalid
from hpc_agent.server.page.console_text import coloured, console_lines, plain_text
from hpc_agent.server.page.page_request import Json, PageRequest
from hpc_agent.server.page.rendering import PAGE_HEADERS, parse_moment
from hpc_agent.server.store import event_store
from hpc_agent.server.store.event_store import ConsolePart, ConsolePlace

_CHARACTERS = 400_000
"""Of the console in one answer."""
_MOST_CHUNKS = 5000
_MOST_MATCHES = 500
_LONGEST_MATCH = 1000
_DOWNLOAD_CHUNKS = 2000
_LAST_LINES = timedelta(minutes=2)
"""How long after its end a task's console is still followed: its last lines may be on their way."""


def newest(page: PageRequest, task: str) -> Json:
    """The end of the console, or what is before the place that the address names."""
    place = _place(page.asked("before"))
    with page.calls.read() as db:
        end = event_store.console_end(db, task)
        part = event_store.console_before(db, task, place, characters=_CHARACTERS, most=_MOST_CHUNKS)
    return {**_shown(part), "end": end, "before": page.asked("before")}


def show_earlier(page: PageRequest) -> Response:
    """The part of a console before a place."""
    place = _place(page.asked("before"))
    with page.calls.read() as db:
        part = event_store.console_before(db, page.path["task"], place, characters=_CHARACTERS, most=_MOST_CHUNKS)
    return page.render("task/console_part.html", task={"id": page.path["task"]}, **_shown(part))


def show_later(page: PageRequest) -> Response:
    """What arrived after the chunk that the page shows last, and whether more is to come."""
    number = page.asked("after", "0")
    if not number.isdecimal() or len(number) > 18:
        raise invalid("after must be the number of a part of the console")
    task = page.calls.one("tasks", page.path["task"], ("status", "status_changed"))
    ended = parse_moment(str(task.get("status_changed") or ""))
    just_ended = ended is not None and page.now - ended < _LAST_LINES
    with page.calls.read() as db:
        rows = event_store.console_after(db, task["id"], int(number), most=_MOST_CHUNKS)
    return page.render(
        "task/console_later.html",
        task=task,
        live=task["status"] in ("queued", "in_progress") or just_ended or len(rows) == _MOST_CHUNKS,
        end=rows[-1].number if rows else int(number),
        console=coloured(console_lines(row.msg for row in rows).rstrip("\n")) if rows else "",
    )


def search_console(page: PageRequest) -> Response:
    """Lines of the whole console that contain a text."""
    text = page.asked("text").strip()
    matches: list[Json] = []
    if text:
        with page.calls.read() as db:
            rows = event_store.console_matches(db, page.path["task"], text, most=_MOST_MATCHES)
        for row in rows:
            lines = plain_text(console_lines([row.msg])).split("\n")
            matches.extend(
                {"line": line[:_LONGEST_MATCH], "place": f"{row.timestamp}-{row.number + 1}"}
                for line in lines
                if text.lower() in line.lower()
            )
    shown = matches[:_MOST_MATCHES]
    return page.render("task/console_matches.html", text=text, matches=shown, cut=len(matches) > len(shown))


def download_console(page: PageRequest) -> Response:
    """The whole console as text."""
    task = page.calls.one("tasks", page.path["task"], ("name",))
    name = re.sub(r"[^\w.-]+", "_", task["name"], flags=re.ASCII)[:100]

    def parts() -> Iterator[str]:
        number = 0
        while True:
            with page.calls.read() as db:
                rows = event_store.console_after(db, task["id"], number, most=_DOWNLOAD_CHUNKS)
            if not rows:
                return
            number = rows[-1].number
            yield plain_text(console_lines(row.msg for row in rows))

    headers = {**PAGE_HEADERS, "Content-Disposition": f'attachment; filename="{name}.log"'}
    return StreamingResponse(parts(), media_type="text/plain", headers=headers)


def _shown(part: ConsolePart) -> Json:
    earlier = part.earlier
    return {
        "console": coloured(console_lines(part.messages[::-1]).rstrip("\n")),
        "earlier": f"{earlier.timestamp}-{earlier.number}" if earlier else "",
    }


def _place(text: str) -> ConsolePlace | None:
    """``1700000000000-17``, as the page's own link has it, or a time in milliseconds alone."""
    if not text:
        return None
    match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", text, re.ASCII)
    if match is None:
        raise invalid("before must be a time in milliseconds")
    return ConsolePlace(int(match[1]), int(match[2] or 0))
