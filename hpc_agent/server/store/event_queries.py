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
    """The first and the last iteration of a variant's reports."""
    row = db.row(
        "SELECT min(iter), max(iter) FROM reports WHERE task = ? AND type = ? AND metric = ? AND variant = ?",
        (task, type, metric, variant),
    )
    return None if row is None or row[0] is None else (int(row[0]), int(row[1]))


def sample_at(
    db: StoreSession, task: str, type: str, metric: str, variant: str, iteration: int | None
) -> Report | None:
    """A variant's report of an iteration or the nearest one before, the last where none is given."""
    bound, parameters = ("", []) if iteration is None else (" AND iter <= ?", [iteration])
    row = db.row(
        f"SELECT {_REPORT_COLUMNS} FROM reports WHERE task = ? AND type = ? AND metric = ? AND variant = ?{bound} "
        "ORDER BY iter DESC LIMIT 1",
        [task, type, metric, variant, *parameters],
    )
    return None if row is None else report_of(row)


def neighbour_of(
    db: StoreSession, task: str, type: str, place: Sample, *, earlier: bool, one_metric: bool, next_iteration: bool
) -> Report | None:
    """The report next to a place: within an iteration by metric and variant, then the next iteration.

    ``next_iteration``: the same metric and variant in another iteration.
    """
    compare, way = ("<", "DESC") if earlier else (">", "ASC")
    where, parameters = "task = ? AND type = ?", [task, type]
    if next_iteration:
        where += f" AND metric = ? AND variant = ? AND iter {compare} ?"
        values: list[object] = [*parameters, place.metric, place.variant, place.iter]
    else:
        where += " AND metric = ?" if one_metric else ""
        where += f" AND (iter, metric, variant) {compare} (?, ?, ?)"
        only = [place.metric] if one_metric else []
        values = [*parameters, *only, place.iter, place.metric, place.variant]
    row = db.row(
        f"SELECT {_REPORT_COLUMNS} FROM reports WHERE {where} ORDER BY iter {way}, metric {way}, variant {way} LIMIT 1",
        values,
    )
    return None if row is None else report_of(row)


def reports_of_variant(db: StoreSession, task: str, type: str, metric: str, variant: str, limit: int) -> list[Report]:
    """The newest reports of a variant, oldest first."""
    rows = db.rows(
        f"SELECT {_REPORT_COLUMNS} FROM reports WHERE task = ? AND type = ? AND metric = ? AND variant = ? "
        "ORDER BY iter DESC LIMIT ?",
        (task, type, metric, variant, limit),
    )
    return [report_of(row) for row in reversed(rows)]


def delete_console(db: StoreSession, task: str, before: int | None) -> int:
    """Delete a task's console, of which only what is older than ``before`` (milliseconds) where given."""
    if before is None:
        return db.run("DELETE FROM console WHERE task = ?", (task,))
    return db.run("DELETE FROM console WHERE task = ? AND timestamp < ?", (task, before))
