"""All events of a task in order of time, page by page. A page begins at the place where the one before ended, so that
none sorts what others have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from hpc_agent.server.store.connection import Row, StoreSession
from hpc_agent.server.store.event_queries import LOG, SCALAR


class EventPlace(NamedTuple):
    """Place of one event: events of the same time are in the order of their tables, then of ``rest``."""

    timestamp: int
    table: int
    """Number in ``_TABLES``."""
    rest: list[int | str]
    """Values of the table's ``order``."""


@dataclass(frozen=True)
class _Table:
    """One of the tables that have events.

    ``order``: columns that order events of the same time. ``columns`` begin with ``timestamp`` and those.
    """

    name: str
    type: str | None
    """Of all of its events; None where each has its own."""
    order: tuple[str, ...]
    columns: tuple[str, ...]


_TABLES = (
    _Table("console", LOG, ("id",), ("timestamp", "id", "worker", "level", "msg", "metric", "variant", "iter")),
    _Table(
        "scalars", SCALAR, ("iter", "metric", "variant"), ("timestamp", "iter", "metric", "variant", "worker", "value")
    ),
    _Table(
        "reports",
        None,
        ("iter", "metric", "variant", "type"),
        ("timestamp", "iter", "metric", "variant", "type", "body"),
    ),
)


@dataclass(frozen=True)
class EventPage:
    """Events as clients send them, and the place of the last one."""

    events: list[dict[str, Any]]
    end: EventPlace | None


def is_place(place: EventPlace) -> bool:
    """Whether an event can have this place; clients send it back."""
    return 0 <= place.table < len(_TABLES) and len(place.rest) == len(_TABLES[place.table].order)


def count_events(db: StoreSession, task: str, type: str | None) -> int:
    """How many events of a type (None: of all) a task has."""
    total = 0
    for table in _tables_with(type):
        where, parameters = _of_task(table, task, type)
        row = db.row(f"SELECT count(*) FROM {table.name} WHERE {where}", parameters)
        assert row is not None
        total += int(row[0])
    return total


def events_after(
    db: StoreSession, task: str, type: str | None, place: EventPlace | None, *, newest_first: bool, limit: int
) -> EventPage:
    """The next ``limit`` events of a type (None: of all) behind a place; from the first one without it."""
    found = chain.from_iterable(
        ((_place(number, row), row) for row in _rows(db, number, task, type, place, newest_first, limit))
        for number, table in enumerate(_TABLES)
        if table in _tables_with(type)
    )
    shown = sorted(found, key=lambda pair: pair[0], reverse=newest_first)[:limit]
    return EventPage([_event(task, at, row) for at, row in shown], shown[-1][0] if shown else place)


def _tables_with(type: str | None) -> Sequence[_Table]:
    if type is None:
        return _TABLES
    return [table for table in _TABLES if table.type == type] or [table for table in _TABLES if table.type is None]


def _of_task(table: _Table, task: str, type: str | None) -> tuple[str, list[object]]:
    if type is None or table.type is not None:
        return "task = ?", [task]
    return "task = ? AND type = ?", [task, type]


def _rows(
    db: StoreSession,
    number: int,
    task: str,
    type: str | None,
    place: EventPlace | None,
    newest_first: bool,
    limit: int,
) -> list[Row]:
    table = _TABLES[number]
    where, parameters = _of_task(table, task, type)
    if place is not None:
        behind, values = _behind(number, place, newest_first)
        where, parameters = f"{where} AND {behind}", [*parameters, *values]
    way = "DESC" if newest_first else "ASC"
    order = ", ".join(f"{name} {way}" for name in ("timestamp", *table.order))
    columns = ", ".join(table.columns)
    if table.name != "reports":
        return db.rows(
            f"SELECT {columns} FROM {table.name} WHERE {where} ORDER BY {order} LIMIT ?", [*parameters, limit]
        )
    # The bodies of the page alone are read: a plot may have a megabyte.
    return db.rows(
        f"SELECT {columns} FROM reports WHERE task = ? AND (type, metric, variant, iter) IN ("
        f" SELECT type, metric, variant, iter FROM reports WHERE {where} ORDER BY {order} LIMIT ?) ORDER BY {order}",
        [task, *parameters, limit],
    )


def _behind(number: int, place: EventPlace, newest_first: bool) -> tuple[str, list[object]]:
    """Condition of a table's events that come behind a place, which may be one of another table's."""
    compare = "<" if newest_first else ">"
    if number == place.table:
        names = ("timestamp", *_TABLES[number].order)
        marks = ", ".join("?" for _ in names)
        return f"({', '.join(names)}) {compare} ({marks})", [place.timestamp, *place.rest]
    same_time_is_behind = (number > place.table) is not newest_first
    return f"timestamp {compare}{'=' if same_time_is_behind else ''} ?", [place.timestamp]


def _place(number: int, row: Row) -> EventPlace:
    return EventPlace(row[0], number, list(row[1 : 1 + len(_TABLES[number].order)]))


def _event(task: str, place: EventPlace, row: Row) -> dict[str, Any]:
    table = _TABLES[place.table]
    fields = {name: value for name, value in zip(table.columns, row, strict=True) if value is not None}
    fields.pop("id", None)
    body = msgspec.json.decode(fields.pop("body", "{}"))
    return {**body, "type": table.type, **fields, "task": task}
