"""Store of scalars: a row for each series, and narrow rows with its points in the order of their iterations.

A point is keyed by its series and iteration: sending one again overwrites it. The view ``scalars`` shows them as wide
rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from hpc_agent.server.store.connection import StoreSession

SINGLE_VALUE = -(2**31)
"""The iteration of a value that has none."""


NewPoint = tuple[int, int, float]
"""Iteration, time in milliseconds, value."""


@dataclass(frozen=True)
class Scalar:
    task: str
    metric: str
    variant: str
    iter: int
    timestamp: int
    value: float
    worker: str


@dataclass(frozen=True)
class Series:
    """One scalar's points: ``x`` iterations or milliseconds, ``y`` values (None where the value was not a number)."""

    metric: str
    variant: str
    x: list[int]
    y: list[float | None]
    x_axis_label: str | None = None


@dataclass(frozen=True)
class Point:
    variant: str
    iter: int
    timestamp: int
    value: float | None


def add_points(
    db: StoreSession,
    series: tuple[str, str, str],
    points: Iterable[NewPoint],
    *,
    worker: str,
    label: str | None = None,
) -> None:
    """Add points to the series of a task, metric and variant, which remembers the worker that reported last.

    ``label``: what its iterations are called.
    """
    number = _series_number(db, series, worker)
    if label:
        db.run("UPDATE scalar_series SET x_axis_label = ? WHERE id = ?", (label, number))
    db.run_many(
        "INSERT OR REPLACE INTO scalar_points (series, iter, timestamp, value) VALUES (?, ?, ?, ?)",
        [(number, *point) for point in points],
    )


def _series_number(db: StoreSession, series: tuple[str, str, str], worker: str) -> int:
    """The number of a series, a new one where there is none yet."""
    found = db.row("SELECT id, worker FROM scalar_series WHERE task = ? AND metric = ? AND variant = ?", series)
    if found is None:
        db.run("INSERT INTO scalar_series (task, metric, variant, worker) VALUES (?, ?, ?, ?)", [*series, worker])
        found = db.row("SELECT last_insert_rowid(), ?", (worker,))
        assert found is not None
    elif found[1] != worker:
        db.run("UPDATE scalar_series SET worker = ? WHERE id = ?", (worker, found[0]))
    return int(found[0])


def delete_scalars(db: StoreSession, task: str) -> int:
    """Returns how many points there were."""
    points = db.run("DELETE FROM scalar_points WHERE series IN (SELECT id FROM scalar_series WHERE task = ?)", (task,))
    db.run("DELETE FROM scalar_series WHERE task = ?", (task,))
    return points


def series(
    db: StoreSession,
    task: str,
    *,
    axis: str = "iter",
    samples: int = 0,
    metrics: Sequence[tuple[str, Sequence[str]]] = (),
) -> Iterator[Series]:
    """The scalar curves of a task; one with more than ``samples`` points (0: no limit) is averaged into so many.

    ``axis`` is ``iter`` or ``timestamp``; ``metrics`` are the wanted ones with their variants (none: all).
    """
    assert axis in {"iter", "timestamp"}
    wanted = {metric: set(variants) for metric, variants in metrics}
    for number, metric, variant, label in db.rows(
        "SELECT id, metric, variant, x_axis_label FROM scalar_series WHERE task = ? ORDER BY metric, variant", (task,)
    ):
        if wanted and (metric not in wanted or (wanted[metric] and variant not in wanted[metric])):
            continue
        rows = _curve(db, number, axis, samples)
        if rows:
            yield Series(metric, variant, [row[0] for row in rows], [row[1] for row in rows], label)


def _curve(db: StoreSession, number: int, axis: str, samples: int) -> list[tuple[int, float | None]]:
    rows = db.rows(
        f"SELECT {axis}, value FROM scalar_points WHERE series = ? AND iter != ? ORDER BY iter LIMIT ?",
        (number, SINGLE_VALUE, samples + 1 if samples else -1),
    )
    if not samples or len(rows) <= samples:
        found = [(row[0], row[1]) for row in rows]
        return found if axis == "iter" else sorted(found, key=lambda point: point[0])
    return _averaged_by_iteration(db, number, samples) if axis == "iter" else _averaged_by_time(db, number, samples)


def _averaged_by_iteration(db: StoreSession, number: int, samples: int) -> list[tuple[int, float | None]]:
    """Each part of the curve is one range of the table's key, read in order: GROUP BY would sort all points first."""
    low, high = _ends(db, number, "iter")
    part = "FROM scalar_points WHERE series = :series AND iter >= low AND iter < low + :width AND iter != :single"
    rows = db.rows(
        "WITH RECURSIVE parts(low) AS "
        "(SELECT :low UNION ALL SELECT low + :width FROM parts WHERE low + :width <= :high) "
        f"SELECT (SELECT iter {part} ORDER BY iter LIMIT 1), (SELECT avg(value) {part}) FROM parts",
        {"series": number, "single": SINGLE_VALUE, "low": low, "high": high, "width": _width(low, high, samples)},
    )
    return [(row[0], row[1]) for row in rows if row[0] is not None]


def _averaged_by_time(db: StoreSession, number: int, samples: int) -> list[tuple[int, float | None]]:
    low, high = _ends(db, number, "timestamp")
    rows = db.rows(
        "SELECT min(timestamp), avg(value) FROM scalar_points WHERE series = ? AND iter != ? "
        "GROUP BY (timestamp - ?) / ? ORDER BY 1",
        (number, SINGLE_VALUE, low, _width(low, high, samples)),
    )
    return [(row[0], row[1]) for row in rows]


def _ends(db: StoreSession, number: int, axis: str) -> tuple[int, int]:
    row = db.row(
        f"SELECT min({axis}), max({axis}) FROM scalar_points WHERE series = ? AND iter != ?", (number, SINGLE_VALUE)
    )
    assert row is not None
    return int(row[0]), int(row[1])


def _width(low: int, high: int, samples: int) -> int:
    return (high - low) // samples + 1


def single_values(db: StoreSession, task: str) -> list[Scalar]:
    rows = db.rows(
        "SELECT task, metric, variant, iter, timestamp, value, worker FROM scalars WHERE task = ? AND iter = ? "
        "ORDER BY metric, variant",
        (task, SINGLE_VALUE),
    )
    return [Scalar(*row) for row in rows]


def points(
    db: StoreSession, task: str, metric: str, variants: Sequence[str], *, after: tuple[str, int] | None, limit: int
) -> list[Point]:
    """Single points of a metric as they were reported, behind the place ``after`` (variant, iteration)."""
    where, parameters = _of_metric(task, metric, variants)
    if after is not None:
        where, parameters = f"{where} AND (variant, iter) > (?, ?)", [*parameters, *after]
    rows = db.rows(
        f"SELECT variant, iter, timestamp, value FROM scalars WHERE {where} ORDER BY variant, iter LIMIT ?",
        [*parameters, limit],
    )
    return [Point(*row) for row in rows]


def count_points(db: StoreSession, task: str, metric: str, variants: Sequence[str]) -> int:
    where, parameters = _of_metric(task, metric, variants)
    row = db.row(f"SELECT count(*) FROM scalars WHERE {where}", parameters)
    assert row is not None
    return int(row[0])


def _of_metric(task: str, metric: str, variants: Sequence[str]) -> tuple[str, list[object]]:
    if not variants:
        return "task = ? AND metric = ?", [task, metric]
    listed = msgspec.json.encode(list(variants)).decode()
    return "task = ? AND metric = ? AND variant IN (SELECT value FROM json_each(?))", [task, metric, listed]


def latest_values(db: StoreSession, task: str) -> list[tuple[str, str, float | None, float | None]]:
    """``(metric, variant, last value, mean of the last 100)`` of every scalar of a task."""
    newest = "SELECT value FROM scalar_points WHERE series = s.id AND iter != :single ORDER BY iter DESC LIMIT"
    rows = db.rows(
        f"SELECT metric, variant, ({newest} 1), (SELECT avg(value) FROM ({newest} 100)) FROM scalar_series s "
        "WHERE task = :task AND EXISTS (SELECT 1 FROM scalar_points WHERE series = s.id AND iter != :single) "
        "ORDER BY metric, variant",
        {"task": task, "single": SINGLE_VALUE},
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]
