"""Questions about events across metrics and iterations: what there is, and single samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from hpc_agent.server.store.connection import StoreSession
from hpc_agent.server.store.event_store import Report, report_of

SCALAR = "training_stats_scalar"
LOG = "log"
_REPORT_COLUMNS = "task, type, metric, variant, iter, timestamp, body"


def metrics_of(db: StoreSession, tasks: Sequence[str], type: str) -> dict[str, dict[str, list[str]]]:
    """``{task: {metric: [variant, …]}}`` of events of one type, in alphabetical order."""
    listed = msgspec.json.encode(list(tasks)).decode()
    table = {SCALAR: "scalar_series", LOG: "console"}.get(type, "reports")
    where = "task IN (SELECT value FROM json_each(?))"
    parameters: list[object] = [listed]
    if table == "reports":
        where, parameters = f"{where} AND type = ?", [listed, type]
    elif table == "console":
        where += " AND metric IS NOT NULL"
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for task, metric, variant in db.rows(
        f"SELECT DISTINCT task, metric, coalesce(variant, '') FROM {table} WHERE {where} ORDER BY 1, 2, 3", parameters
    ):
        found[task][metric].append(variant)
    return found


@dataclass(frozen=True)
class Sample:
    """Place of one report: what an iterator over samples remembers."""

    metric: str
    variant: str
    iter: int


def iterations_of(db: StoreSession, task: str, type: str, metric: str, variant: str) -> tuple[int, int] | None:
    """The first and the last iteration of a variant's reports, or of all of a metric's where it is empty."""
    of_variant, parameters = _of_variant(variant)
    row = db.row(
        f"SELECT min(iter), max(iter) FROM reports WHERE task = ? AND type = ? AND metric = ?{of_variant}",
        [task, type, metric, *parameters],
    )
    return None if row is None or row[0] is None else (int(row[0]), int(row[1]))


def _of_variant(variant: str) -> tuple[str, list[str]]:
    return (" AND variant = ?", [variant]) if variant else ("", [])


def samples_at(
    db: StoreSession, task: str, type: str, metric: str, variant: str, iteration: int | None
) -> list[Report]:
    """A variant's report of an iteration or the nearest one before, the last where none is given.

    Where ``variant`` is empty: all of the metric's reports of that iteration.
    """
    of_variant, parameters = _of_variant(variant)
    before, bound = ("", []) if iteration is None else (" AND iter <= ?", [iteration])
    where = f"task = ? AND type = ? AND metric = ?{of_variant}"
    values: list[object] = [task, type, metric, *parameters]
    rows = db.rows(
        f"SELECT {_REPORT_COLUMNS} FROM reports WHERE {where}"
        f" AND iter = (SELECT max(iter) FROM reports WHERE {where}{before}) ORDER BY variant",
        [*values, *values, *bound],
    )
    return [report_of(row) for row in rows]


def neighbours_of(
    db: StoreSession, task: str, type: str, place: Sample, *, earlier: bool, one_metric: bool, next_iteration: bool
) -> list[Report]:
    """The report next to a place: within an iteration by metric and variant, then in the next iteration.

    A place without a variant is all of a metric's reports of an iteration, and so is its neighbour. ``next_iteration``
    passes over the rest of the iteration.
    """
    compare, way = ("<", "DESC") if earlier else (">", "ASC")
    within = [] if next_iteration else ["metric", "variant"] if place.variant else ["metric"]
    names = ["iter", *within]
    bounds: dict[str, object] = {"iter": place.iter, "metric": place.metric, "variant": place.variant}
    where = "task = ? AND type = ?" + (" AND metric = ?" if one_metric else "")
    where += f" AND ({', '.join(names)}) {compare} ({', '.join('?' for _ in names)})"
    row = db.row(
        f"SELECT {_REPORT_COLUMNS} FROM reports WHERE {where} ORDER BY iter {way}, metric {way}, variant {way} LIMIT 1",
        [task, type, *([place.metric] if one_metric else []), *(bounds[name] for name in names)],
    )
    if row is None:
        return []
    found = report_of(row)
    return [found] if place.variant else samples_at(db, task, type, found.metric, "", found.iter)


def reports_of_variant(db: StoreSession, task: str, type: str, metric: str, variant: str, limit: int) -> list[Report]:
    """The newest reports of a variant, oldest first."""
    rows = db.rows(
        f"SELECT {_REPORT_COLUMNS} FROM reports WHERE task = ? AND type = ? AND metric = ? AND variant = ? "
        "ORDER BY iter DESC LIMIT ?",
        (task, type, metric, variant, limit),
    )
    return [report_of(row) for row in reversed(rows)]


def delete_console(
    db: StoreSession,
    task: str,
    before: int | None,
    *,
    only: Sequence[str] | None = None,
    but_for: Sequence[str] | None = None,
) -> int:
    """Delete a task's console.

    Of which only what is older than ``before`` (milliseconds), and ``only`` the chunks of these metrics or those
    ``but_for`` the ones of these, where given. Most chunks have no metric.
    """
    where, parameters = "task = ?", [task]
    for metrics, test in ((only, "IN"), (but_for, "NOT IN")):
        if metrics:
            where += f" AND coalesce(metric, '') {test} (SELECT value FROM json_each(?))"
            parameters.append(msgspec.json.encode(list(metrics)).decode())
    if before is None:
        return db.run(f"DELETE FROM console WHERE {where}", parameters)
    return db.run(f"DELETE FROM console WHERE {where} AND timestamp < ?", [*parameters, before])
