"""``workers.*`` and ``queues.*``: usage and lengths over time, from the last 14 days."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, Literal

import msgspec

from hpc_agent.server.action import Access, Answer, Call, Ids, Json, RequestBody, Service
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.services.workers import GetAllRequest, conditions_of, is_expired
from hpc_agent.server.store import usage_history
from hpc_agent.server.store.documents import workers
from hpc_agent.server.store.query import Query
from hpc_agent.server.store.usage_history import KEPT_MS, Period, Usage
from hpc_agent.wire.error_kinds import FIELDS_VALUE_ERROR, WORKER_STATS_NOT_FOUND

of_workers = Service("workers")
of_queues = Service("queues")
services = (of_workers, of_queues)

_MOST_STEPS = 10_000
_SHORTEST_STEP = 40
"""Seconds, for figures of workers; agents report every 30."""
_CATEGORIES = ("cpu", "gpu", "memory", "network", "disk")
Seconds = Annotated[float, msgspec.Meta(ge=0, le=10**10)]
Interval = Annotated[int, msgspec.Meta(ge=1, le=10**8)]


class _PeriodRequest(RequestBody, frozen=True, kw_only=True):
    from_date: Seconds
    to_date: Seconds
    interval: Interval


class StatItem(RequestBody, frozen=True):
    key: str
    category: Literal["avg", "min", "max"] | None = None
    aggregation: Literal["avg", "min", "max"] | None = None

    @property
    def kind(self) -> str:
        """The clients' schema names the field one way, the server another."""
        return self.aggregation or self.category or "avg"


class StatsRequest(_PeriodRequest, frozen=True, kw_only=True):
    items: Annotated[list[StatItem], msgspec.Meta(min_length=1, max_length=100)]
    worker_ids: Ids | None = None
    split_by_variant: bool = False
    split_by_resource: bool = False


class KeysRequest(RequestBody, frozen=True):
    worker_ids: Ids | None = None


class QueueMetricsRequest(_PeriodRequest, frozen=True, kw_only=True):
    queue_ids: Ids | None = None
    refresh: bool = False


def _period(request: _PeriodRequest, shortest: int = 1) -> Period:
    """
    Raises:
        ApiFault: 400/16, the end is before the start; 400/12, there are too many steps.
    """
    step = max(request.interval, shortest) * 1000
    start, end = int(request.from_date * 1000), int(request.to_date * 1000)
    if end <= start:
        raise ApiFault(FIELDS_VALUE_ERROR, "to_date must be later than from_date")
    if (end - start) // step > _MOST_STEPS:
        raise invalid(f"the period may have {_MOST_STEPS} intervals: give a longer interval")
    return Period(start, end, step)


@of_workers.action(GetAllRequest, Access.READ)
def get_count(request: GetAllRequest, call: Call) -> Answer:
    """Number of workers that are alive."""
    found = workers.find(call.db, Query(tuple(conditions_of(request, call))))
    return {"count": sum(not is_expired(worker, call.now) for worker in found)}


@of_workers.action(KeysRequest, Access.READ)
def get_metric_keys(request: KeysRequest, call: Call) -> Answer:
    """Names of the figures that workers report, by category."""
    names = usage_history.metric_names(call.db, request.worker_ids, _milliseconds(call) - KEPT_MS)
    if not names:
        raise ApiFault(WORKER_STATS_NOT_FOUND, "no worker of these has reported its usage")
    by_category = {category: [name for name in names if name.startswith(category)] for category in _CATEGORIES}
    return {"categories": [{"name": name, "metric_keys": keys} for name, keys in by_category.items() if keys]}


def _milliseconds(call: Call) -> int:
    return int(call.now.timestamp() * 1000)


@of_workers.action(StatsRequest, Access.READ)
def get_stats(request: StatsRequest, call: Call) -> Answer:
    """Usage of workers over time: average, least or greatest value of each interval."""
    kinds: dict[str, list[str]] = {}
    for item in request.items:
        kinds.setdefault(item.key, []).append(item.kind)
    period = _period(request, _SHORTEST_STEP)
    found = usage_history.usage(call.db, request.worker_ids, list(kinds), period)
    split = request.split_by_variant or request.split_by_resource
    listed = []
    for worker, of_worker in groupby(found, key=lambda usage: usage.worker):
        metrics: list[Json] = []
        for (metric, variant), group in groupby(of_worker, key=lambda u: (u.metric, u.variant if split else "")):
            metrics.append(_series(metric, variant, list(group), kinds[metric], period))
        listed.append({"worker": worker, "metrics": metrics})
    return {"workers": listed}


def _series(metric: str, variant: str, points: list[Usage], kinds: list[str], period: Period) -> Json:
    """The points of several variants at one moment are one; where there is none the value is 0."""
    dates = period.steps
    steps: dict[int, list[Usage]] = {date: [] for date in dates}
    for point in points:
        steps[point.moment].append(point)
    values = {
        "avg": [sum(u.average for u in steps[date]) / max(len(steps[date]), 1) for date in dates],
        "min": [min((u.least for u in steps[date]), default=0) for date in dates],
        "max": [max((u.greatest for u in steps[date]), default=0) for date in dates],
    }
    stats = [{"aggregation": kind, "values": values[kind]} for kind in kinds]
    return {"metric": metric, **({"variant": variant} if variant else {}), "dates": dates, "stats": stats}


@of_workers.action(_PeriodRequest, Access.READ)
def get_activity_report(request: _PeriodRequest, call: Call) -> Answer:
    """How many workers reported in each interval, and how many of them ran a task."""
    period = _period(request, _SHORTEST_STEP)
    found = {moment: (total, active) for moment, total, active in usage_history.activity(call.db, period)}
    dates = period.steps
    counts = [found.get(date, (0, 0)) for date in dates]
    return {
        "total": {"dates": dates, "counts": [total for total, _ in counts]},
        "active": {"dates": dates, "counts": [active for _, active in counts]},
    }


@of_queues.action(QueueMetricsRequest, Access.READ)
def get_queue_metrics(request: QueueMetricsRequest, call: Call) -> Answer:
    """Lengths and waiting times of queues over time."""
    found = usage_history.queue_lengths(call.db, request.queue_ids, _period(request))
    wanted = request.queue_ids or sorted(found)
    return {"queues": [_lengths(queue, found.get(queue, [])) for queue in wanted]}


def _lengths(queue: str, points: list[tuple[int, float, float]]) -> Json:
    return {
        "queue": queue,
        "dates": [moment for moment, _, _ in points],
        "avg_waiting_times": [round(waited, 3) for _, waited, _ in points],
        "queue_lengths": [length for _, _, length in points],
    }
