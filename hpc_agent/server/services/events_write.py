"""Events in: console, scalars, plots, images.

See docs/internals/clearml-protocol.md#event-types.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Batch, Call, Json, Service
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.event_batch import EventBatch, EventOwner, Reported, parsed
from hpc_agent.server.store import event_store, scalar_store
from hpc_agent.server.store.documents import models, tasks
from hpc_agent.server.store.scalar_store import SINGLE_VALUE
from hpc_agent.wire.error_kinds import EVENTS_NOT_ADDED, VALIDATION_ERROR

service = Service("events")

_LOCKED = frozenset({TaskStatus.PUBLISHED.value, TaskStatus.PUBLISHING.value})
_MOST_LATEST = 5000
"""Metrics and variants whose latest values are kept in the task, which is read and written as a whole."""


class MixedLockFault(ApiFault):
    """Refuses the whole batch, as on the reference server."""

    def __init__(self, detail: str, **data: Any) -> None:
        super().__init__(VALIDATION_ERROR, detail, **data)


@service.action(Json, Access.REPORT, prepare=parsed)
def add(batch: EventBatch, call: Call) -> Answer:
    """Store one event."""
    return _store(batch, call)


@service.action(Batch, Access.REPORT, prepare=parsed)
def add_batch(batch: EventBatch, call: Call) -> Answer:
    """Store events, one JSON object a line."""
    return _store(batch, call)


def _store(batch: EventBatch, call: Call) -> Answer:
    """
    Raises:
        ApiFault: 400/131, no event was stored.
    """
    problems = Counter(batch.problems)
    stored: dict[EventOwner, Reported] = {}
    lock_rules: dict[str, bool] = {}
    for owner, reported in batch.by_owner.items():
        try:
            _check(call, owner, lock_rules)
        except MixedLockFault:
            raise
        except ApiFault as fault:
            problems[str(fault)] += len(reported)
        else:
            stored[owner] = reported
    if not stored:
        raise ApiFault(EVENTS_NOT_ADDED, "; ".join(problems) or "the batch is empty")
    for owner, reported in stored.items():
        event_store.add_chunks(call.db, reported.chunks)
        for (metric, variant), points in reported.points.items():
            series = (owner.id, metric, variant)
            label = reported.labels.get((metric, variant))
            scalar_store.add_points(call.db, series, points, worker=reported.workers[metric, variant], label=label)
        event_store.add_reports(call.db, reported.reports)
        _note(call, owner, reported)
    added = sum(map(len, stored.values()))
    return {"added": added, "errors": sum(problems.values()), "errors_info": dict(problems)}


def _check(call: Call, owner: EventOwner, lock_rules: dict[str, bool]) -> None:
    """
    Raises:
        ApiFault: the task or model does not exist, or is published.
    """
    status = _status(call, owner)
    if status is None:
        raise invalid("Invalid model id" if owner.is_model else "Invalid task id", id=owner.id[:64])
    if lock_rules.setdefault(owner.id, owner.allow_locked) != owner.allow_locked:
        raise MixedLockFault("the events of one task must agree on allow_locked", task=owner.id)
    if status in _LOCKED and not owner.allow_locked:
        raise invalid("a published task takes no events", task=owner.id)


def _status(call: Call, owner: EventOwner) -> str | None:
    if owner.is_model:
        return "" if models.get(call.db, owner.id, ("id",)) else None
    task = tasks.get(call.db, owner.id, ("status",))
    return None if task is None else str(task["status"])


def _note(call: Call, owner: EventOwner, reported: Reported) -> None:
    """Leave on a task or model that it is alive, how far it is, and its latest figures."""
    collection, id = models if owner.is_model else tasks, owner.id
    changes: dict[str, Any] = {"last_update": call.time}
    iterations = [point[0] for points in reported.points.values() for point in points if point[0] != SINGLE_VALUE]
    iterations += [report.iter for report in reported.reports]
    if iterations or reported.points:
        before = collection.get(call.db, id, ("last_iteration", "last_metrics")) or {}
        changes["last_iteration"] = max(0, *iterations, before.get("last_iteration", 0))
        changes["last_metrics"] = _latest(before.get("last_metrics", {}), reported)
    collection.update(call.db, id, changes)


def _latest(metrics: Json, reported: Reported) -> Json:
    """``{md5(metric): {md5(variant): {metric, variant, value, min_value, max_value, …}}}``, as clients look it up."""
    result = {key: dict(variants) for key, variants in metrics.items()}
    shown = sum(map(len, result.values()))
    for (metric, variant), of_series in reported.points.items():
        numbers = sorted((iteration, value) for iteration, _, value in of_series if value == value)
        old = result.get(_key(metric), {}).get(_key(variant), {})
        if not numbers or (not old and shown >= _MOST_LATEST):
            continue
        shown += 0 if old else 1
        new = {**old, "metric": metric, "variant": variant, **_figures(old, numbers)}
        if label := reported.labels.get((metric, variant)):
            new["x_axis_label"] = label
        result.setdefault(_key(metric), {})[_key(variant)] = new
    # As a document database keeps them: readers that take the first one get the same one as there.
    return {key: dict(sorted(result[key].items())) for key in sorted(result)}


def _figures(old: Json, points: list[tuple[int, float]]) -> Json:
    """What is new of a series, whose figures were ``old``, after these iterations and values."""
    # A series that an older version began is counted from here on.
    before = old.get("count", 0)
    count = before + len(points)
    values = [value for _, value in points]
    mean = old.get("mean_value", 0.0) * (before / count) + math.fsum(value / count for value in values)
    new = {"value": values[-1], "count": count, "mean_value": mean}
    if "first_value" not in old:
        new |= {"first_value": values[0], "first_value_iteration": points[0][0]}
    for name, value in (("min", min(values)), ("max", max(values))):
        beats = not old or (value < old["min_value"] if name == "min" else value > old["max_value"])
        if beats:
            new |= {f"{name}_value": value, f"{name}_value_iteration": points[values.index(value)][0]}
    return new


def _key(name: str) -> str:
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
