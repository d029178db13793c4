"""Store of the events that running tasks report: console chunks as they came, and plots, vectors and images as JSON.

Reports are keyed by task, metric, variant and iteration: sending one again overwrites it. Scalars have a store of
their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from hpc_agent.server.store.connection import StoreSession
from hpc_agent.server.store.scalar_store import delete_scalars

DEBUG_IMAGE = "training_debug_image"
_SAME_FILE = f"type = '{DEBUG_IMAGE}' AND task = ? AND metric = ? AND variant = ? AND json_extract(body, '$.url') = ?"
_IMAGE_OF_PLOT = re.compile(r'"source": ?"(https?://[^"]+)"')
MOST_OF_A_MOMENT = 10_000
"""Chunks of one millisecond that are given out together."""
LONGEST_ANSWER = 16 * 1024 * 1024
"""Characters of console text after which an answer takes no more chunks."""


_CHUNK_COLUMNS = ("task", "timestamp", "level", "worker", "msg", "metric", "variant", "iter")
NewChunk = tuple[str, int, str, str, str] | tuple[str, int, str, str, str, str | None, str | None, int | None]
"""A ``StoredChunk`` as plain values; without the last three, which most chunks have not."""


class StoredChunk(NamedTuple):
    """Console text of a task, one line or many. ``timestamp`` in milliseconds."""

    task: str
    timestamp: int
    level: str
    worker: str
    msg: str
    metric: str | None = None
    variant: str | None = None
    iter: int | None = None


@dataclass(frozen=True)
class Report:
    """A plot, vector or image; ``body`` is the event as it came."""

    task: str
    type: str
    metric: str
    variant: str
    iter: int
    timestamp: int
    body: dict[str, Any]


def add_chunks(db: StoreSession, chunks: Sequence[NewChunk]) -> None:
    """Add console text in the order given, in which the chunks are numbered."""
    # A chunk without a metric is most of them, and three columns cost a third of its time.
    for width, alike in groupby(chunks, key=len):
        names = _CHUNK_COLUMNS[:width]
        db.run_many(
            f"INSERT INTO console ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})",
            list(alike),
        )


def add_reports(db: StoreSession, reports: Sequence[Report]) -> None:
    """An image that overwrites the file of an earlier iteration replaces the earlier report."""
    db.run_many(
        "INSERT OR REPLACE INTO reports (task, type, metric, variant, iter, timestamp, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (r.task, r.type, r.metric, r.variant, r.iter, r.timestamp, msgspec.json.encode(r.body).decode())
            for r in reports
        ],
    )
    images = {
        (r.task, r.metric, r.variant, r.body["url"])
        for r in reports
        if r.type == DEBUG_IMAGE and isinstance(r.body.get("url"), str) and r.body["url"]
    }
    db.run_many(
        f"DELETE FROM reports WHERE {_SAME_FILE} AND iter < (SELECT max(iter) FROM reports WHERE {_SAME_FILE})",
        [image + image for image in images],
    )


def delete_for_task(db: StoreSession, task: str) -> int:
    """Returns how many events there were."""
    others = sum(db.run(f"DELETE FROM {table} WHERE task = ?", (task,)) for table in ("console", "reports"))
    return others + delete_scalars(db, task)


def image_urls(db: StoreSession, task: str) -> list[str]:
    """Where the files of a task's images, and of the images in its plots, are."""
    rows = db.rows(
        "SELECT json_extract(body, '$.url'), json_extract(body, '$.plot_str') FROM reports WHERE task = ?", (task,)
    )
    found = {url for url, _ in rows if isinstance(url, str) and url}
    for _, plot in rows:
        if isinstance(plot, str):
            found |= set(_IMAGE_OF_PLOT.findall(plot))
    return sorted(found)


def count_chunks(db: StoreSession, task: str, metrics: Sequence[str] | None = None) -> int:
    """How many chunks a console has; ``metrics``: of these alone."""
    of_metrics, parameters = _of_metrics(metrics)
    row = db.row(f"SELECT count(*) FROM console WHERE task = ?{of_metrics}", [task, *parameters])
    assert row is not None
    return int(row[0])


def _of_metrics(metrics: Sequence[str] | None) -> tuple[str, list[str]]:
    if metrics is None:
        return "", []
    return " AND metric IN (SELECT value FROM json_each(?))", [msgspec.json.encode(list(metrics)).decode()]


def chunks(
    db: StoreSession,
    task: str,
    *,
    earlier: bool,
    start: int | None = None,
    limit: int = 100,
    metrics: Sequence[str] | None = None,
) -> list[StoredChunk]:
    """Chunks before (``earlier``) or after the time ``start``, nearest first: ``limit``, fewer where they are long.

    ``metrics``: those of these metrics alone.

    Chunks of the same millisecond as the last one come along (``MOST_OF_A_MOMENT`` at most), so that the next page can
    start at its time.
    """
    direction, compare = ("DESC", "<") if earlier else ("ASC", ">")
    since = "" if start is None else f" AND timestamp {compare} ?"
    of_metrics, parameters = _of_metrics(metrics)
    rows = db.each(
        f"SELECT {', '.join(_CHUNK_COLUMNS)} FROM console WHERE task = ?{since}{of_metrics} "
        f"ORDER BY timestamp {direction}, id {direction} LIMIT ?",
        [task, *([] if start is None else [start]), *parameters, limit + MOST_OF_A_MOMENT],
    )
    found: list[StoredChunk] = []
    characters = 0
    for row in rows:
        full = len(found) >= limit or characters >= LONGEST_ANSWER
        if full and row[1] != found[-1].timestamp:
            break
        found.append(StoredChunk(*row))
        characters += len(row[4])
    return found


@dataclass(frozen=True)
class ConsolePart:
    """Some of a console, newest chunk first, and the place before which there is more of it."""

    messages: list[str]
    earlier: ConsolePlace | None


@dataclass(frozen=True)
class ConsolePlace:
    """Between two chunks: before the one of this time and number (0: before all of this time)."""

    timestamp: int
    number: int = 0


def console_before(
    db: StoreSession, task: str, place: ConsolePlace | None, *, characters: int, most: int
) -> ConsolePart:
    """The chunks before ``place`` (the newest without one), until there are so many characters or chunks.

    Of a chunk that is longer by itself only the end.
    """
    where = "" if place is None else " AND (timestamp, id) < (?, ?)"
    bounds = [] if place is None else [place.timestamp, place.number]
    messages: list[str] = []
    last: ConsolePlace | None = None
    total = 0
    for timestamp, number, message in db.each(
        f"SELECT timestamp, id, substr(msg, {-characters}) FROM console WHERE task = ?{where} "
        "ORDER BY timestamp DESC, id DESC LIMIT ?",
        [task, *bounds, most + 1],
    ):
        if total >= characters or len(messages) >= most:
            return ConsolePart(messages, last)
        messages.append(message)
        last = ConsolePlace(timestamp, number)
        total += len(message)
    return ConsolePart(messages, None)


@dataclass(frozen=True)
class ConsoleRow:
    """One chunk of a console with its place; numbers grow in the order in which chunks arrive."""

    timestamp: int
    number: int
    msg: str


def console_end(db: StoreSession, task: str) -> int:
    """The largest number of a task's chunks; 0 when it has none."""
    row = db.row("SELECT max(id) FROM console WHERE task = ?", (task,))
    return int(row[0]) if row and row[0] is not None else 0


def console_after(db: StoreSession, task: str, number: int, *, most: int) -> list[ConsoleRow]:
    """The chunks that arrived after the one of this number, first one first."""
    rows = db.rows(
        "SELECT timestamp, id, msg FROM console WHERE task = ? AND id > ? ORDER BY id LIMIT ?", (task, number, most)
    )
    return [ConsoleRow(*row) for row in rows]


def console_matches(db: StoreSession, task: str, text: str, *, most: int) -> list[ConsoleRow]:
    """The chunks that contain ``text``, upper and lower case of ASCII letters alike, in the order of the console."""
    rows = db.rows(
        "SELECT timestamp, id, msg FROM console WHERE task = ? AND instr(lower(msg), lower(?)) "
        "ORDER BY timestamp, id LIMIT ?",
        (task, text, most),
    )
    return [ConsoleRow(*row) for row in rows]


@dataclass(frozen=True)
class ReportName:
    """Metric and variant of reports, and the newest iteration that there is one of."""

    metric: str
    variant: str
    iter: int


def report_names(db: StoreSession, task: str, type: str) -> list[ReportName]:
    """What a task has reported of one type, without the reports themselves."""
    rows = db.rows(
        "SELECT metric, variant, max(iter) FROM reports WHERE task = ? AND type = ? GROUP BY metric, variant "
        "ORDER BY metric, variant",
        (task, type),
    )
    return [ReportName(*row) for row in rows]


def latest_reports(db: StoreSession, task: str, type: str, iterations: int) -> list[Report]:
    """The newest ``iterations`` of each metric and variant, newest first."""
    rows = db.rows(
        "SELECT task, type, metric, variant, iter, timestamp, body FROM ("
        " SELECT *, row_number() OVER (PARTITION BY metric, variant ORDER BY iter DESC) AS age"
        " FROM reports WHERE task = ? AND type = ?) WHERE age <= ? ORDER BY metric, variant, iter DESC",
        (task, type, iterations),
    )
    return [report_of(row) for row in rows]


def reports_by_iteration(
    db: StoreSession, task: str, type: str, *, metric: str | None, earlier: bool, start: int | None, iterations: int
) -> list[Report]:
    """All reports of the ``iterations`` iterations before (``earlier``) or after ``start``, nearest first."""
    direction, compare = ("DESC", "<") if earlier else ("ASC", ">")
    where, parameters = "task = ? AND type = ?", [task, type]
    if metric is not None:
        where, parameters = where + " AND metric = ?", [*parameters, metric]
    bound: list[object] = [*parameters]
    if start is not None:
        where, bound = f"{where} AND iter {compare} ?", [*bound, start]
    rows = db.rows(
        f"SELECT task, type, metric, variant, iter, timestamp, body FROM reports WHERE {where} AND iter IN ("
        f" SELECT DISTINCT iter FROM reports WHERE {where} ORDER BY iter {direction} LIMIT ?) "
        f"ORDER BY iter {direction}, metric, variant",
        [*bound, *bound, iterations],
    )
    return [report_of(row) for row in rows]


def report_of(row: Sequence[Any]) -> Report:
    task, type, metric, variant, iteration, timestamp, body = row
    return Report(task, type, metric, variant, iteration, timestamp, msgspec.json.decode(body))
