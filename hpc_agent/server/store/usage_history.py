"""History of workers' usage and of queues' lengths; the watchdog deletes old rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hpc_agent.server.store.connection import StoreSession

KEPT_MS = 14 * 86400 * 1000
_SPACING_MS = 5000
"""Between two records of one queue: a burst of entries is one change."""


def add_usage(db: StoreSession, worker: str, moment: int, task: str, stats: Mapping[str, Any]) -> None:
    """What a worker reports of itself; ``moment`` in milliseconds. Values that are not numbers are dropped."""
    numbers = {name: value for name, value in stats.items() if _is_figure(value)}
    db.run(
        "INSERT OR REPLACE INTO worker_usage (worker, moment, task, stats) VALUES (?, ?, ?, ?)",
        (worker, moment, task, msgspec.json.encode(numbers).decode()),
    )


def _is_figure(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 256 and all(_is_figure(item) and not isinstance(item, list) for item in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def add_queue_length(db: StoreSession, queue: str, moment: int, now: str) -> None:
    """How many tasks wait in a queue, and for how long on average."""
    recent = db.row("SELECT 1 FROM queue_history WHERE queue = ? AND moment > ?", (queue, moment - _SPACING_MS))
    if recent is not None:
        return
    db.run(
        "INSERT OR REPLACE INTO queue_history (queue, moment, length, waited_s) "
        "SELECT ?, ?, count(*), coalesce(avg((julianday(?) - julianday(added)) * 86400), 0) "
        "FROM queue_entries WHERE queue = ?",
        (queue, moment, now, queue),
    )


def forget(db: StoreSession, before: int) -> int:
    """Delete what is older than ``before`` (milliseconds)."""
    tables = ("worker_usage", "queue_history")
    return sum(db.run(f"DELETE FROM {table} WHERE moment < ?", (before,)) for table in tables)


@dataclass(frozen=True)
class Period:
    """From ``start`` to ``end`` in steps of ``step``, all in milliseconds."""

    start: int
    end: int
    step: int

    @property
    def steps(self) -> list[int]:
        """Where each begins."""
        return list(range(self.start, self.end, self.step))


@dataclass(frozen=True)
class Usage:
    """One figure of one worker in one step of a period. ``variant``: place in the list that the worker reported."""

    worker: str
    metric: str
    variant: str
    moment: int
    average: float
    least: float
    greatest: float


def usage(db: StoreSession, workers: Sequence[str] | None, metrics: Sequence[str], period: Period) -> list[Usage]:
    """Figures by worker, metric, variant and step, in this order."""
    only, parameters = _of_workers(workers)
    rows = db.rows(
        "SELECT worker, metric.key, CASE WHEN metric.type = 'array' THEN figure.key ELSE '' END AS variant,"
        " :start + (moment - :start) / :step * :step AS step, avg(figure.value), min(figure.value), max(figure.value)"
        " FROM worker_usage, json_each(worker_usage.stats) AS metric,"
        " json_each(CASE WHEN metric.type = 'array' THEN metric.value ELSE json_array(metric.value) END) AS figure"
        f" WHERE moment >= :start AND moment < :end AND {only}"
        " AND metric.key IN (SELECT value FROM json_each(:metrics))"
        " GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
        {
            **parameters,
            "start": period.start,
            "end": period.end,
            "step": period.step,
            "metrics": msgspec.json.encode(list(metrics)).decode(),
        },
    )
    return [Usage(row[0], row[1], str(row[2]), row[3], row[4], row[5], row[6]) for row in rows]


def metric_names(db: StoreSession, workers: Sequence[str] | None, since: int) -> list[str]:
    """Which figures workers have reported."""
    only, parameters = _of_workers(workers)
    rows = db.rows(
        "SELECT DISTINCT metric.key FROM worker_usage, json_each(worker_usage.stats) AS metric"
        f" WHERE moment >= :since AND {only} ORDER BY 1",
        {**parameters, "since": since},
    )
    return [row[0] for row in rows]


def _of_workers(workers: Sequence[str] | None) -> tuple[str, dict[str, Any]]:
    if not workers:
        return "1", {}
    return "worker IN (SELECT value FROM json_each(:workers))", {"workers": msgspec.json.encode(list(workers)).decode()}


def activity(db: StoreSession, period: Period) -> list[tuple[int, int, int]]:
    """``(moment, workers that reported, those of them with a task)`` of each step."""
    rows = db.rows(
        "SELECT :start + (moment - :start) / :step * :step AS step, count(DISTINCT worker),"
        " count(DISTINCT CASE WHEN task != '' THEN worker END)"
        " FROM worker_usage WHERE moment >= :start AND moment < :end GROUP BY 1 ORDER BY 1",
        {"start": period.start, "end": period.end, "step": period.step},
    )
    return [(row[0], row[1], row[2]) for row in rows]


def queue_lengths(
    db: StoreSession, queues: Sequence[str] | None, period: Period
) -> dict[str, list[tuple[int, float, float]]]:
    """``{queue: [(moment, mean waiting time in seconds, greatest length)]}`` of each step with a record."""
    only = "1" if not queues else "queue IN (SELECT value FROM json_each(:queues))"
    parameters = {"start": period.start, "end": period.end, "step": period.step}
    if queues:
        parameters["queues"] = msgspec.json.encode(list(queues)).decode()  # type: ignore[assignment]
    rows = db.rows(
        "SELECT queue, :start + (moment - :start) / :step * :step AS step, avg(waited_s), max(length)"
        f" FROM queue_history WHERE moment >= :start AND moment < :end AND {only} GROUP BY 1, 2 ORDER BY 1, 2",
        parameters,
    )
    found: dict[str, list[tuple[int, float, float]]] = {}
    for queue, moment, waited, length in rows:
        found.setdefault(queue, []).append((moment, waited, length))
    return found
