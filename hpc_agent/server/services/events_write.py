"""Events in: console, scalars, plots, images. One bad event costs itself, not its batch.

See docs/internals/clearml-protocol.md#event-types.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Batch, Call, Int64, Json, RequestBody, Service
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.store import event_store
from hpc_agent.server.store.documents import models, tasks
from hpc_agent.server.store.event_store import SINGLE_VALUE, Report, Scalar, StoredChunk
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import EVENTS_NOT_ADDED, VALIDATION_ERROR

service = Service("events")

_LOCKED = frozenset({TaskStatus.PUBLISHED.value, TaskStatus.PUBLISHING.value})
_LATEST_MOMENT = 2.0**53
_MOST_LATEST = 5000
"""Metrics and variants whose latest values are kept in the task, which is read and written as a whole."""


class _Event(RequestBody, frozen=True):
    task: str
    timestamp: float | None = None
    worker: str | None = None
    allow_locked: bool = False
    model_event: bool = False


class _Log(_Event, frozen=True):
    msg: str = ""
    level: str = "INFO"
    metric: str | None = None
    variant: str | None = None
    iter: Int64 | None = None


class _Measured(_Event, frozen=True):
    metric: str = ""
    variant: str = ""
    iter: Int64 = 0


class _ScalarEvent(_Measured, frozen=True, kw_only=True):
    value: float


_TYPES: dict[str, type[_Event]] = {
    "log": _Log,
    "training_stats_scalar": _ScalarEvent,
    "training_stats_vector": _Measured,
    "training_debug_image": _Measured,
    "plot": _Measured,
}


class MixedLockFault(ApiFault):
    """Refuses the whole batch, as on the reference server."""

    def __init__(self, detail: str, **data: Any) -> None:
        super().__init__(VALIDATION_ERROR, detail, **data)


@service.action(Json, Access.REPORT)
def add(request: Json, call: Call) -> Answer:
    """Store one event."""
    added, problems = _store([request], call)
    return _stored_answer(added, problems)


@service.action(Batch, Access.REPORT)
def add_batch(request: Batch, call: Call) -> Answer:
    """Store events, one JSON object a line."""
    added, problems = _store(request, call)
    return _stored_answer(added, problems)


def _stored_answer(added: int, problems: Counter[str]) -> Answer:
    return {"added": added, "errors": sum(problems.values()), "errors_info": dict(problems)}


def _store(batch: Batch, call: Call) -> tuple[int, Counter[str]]:
    """How many were stored, and what was wrong with the others.

    Raises:
        ApiFault: 400/131, no event was stored.
    """
    problems: Counter[str] = Counter()
    chunks: list[StoredChunk] = []
    scalars: list[Scalar] = []
    reports: list[Report] = []
    owners = _Owners(call)
    for raw in batch:
        try:
            kind, event = _typed(raw)
            owners.check(event)
            stored = _stored(kind, event, raw, call)
        except MixedLockFault:
            raise
        except (ApiFault, msgspec.ValidationError) as error:
            problems[str(error)] += 1
            continue
        if isinstance(stored, StoredChunk):
            chunks.append(stored)
        elif isinstance(stored, Scalar):
            scalars.append(stored)
        else:
            reports.append(stored)
    added = len(chunks) + len(scalars) + len(reports)
    if not added:
        raise ApiFault(EVENTS_NOT_ADDED, "; ".join(problems) or "the batch is empty")
    event_store.add_chunks(call.db, chunks)
    event_store.add_scalars(call.db, scalars)
    event_store.add_reports(call.db, reports)
    _note(call, owners.tasks, scalars, reports)
    return added, problems


def _typed(raw: Json) -> tuple[str, _Event]:
    kind = str(raw.get("type", "")).replace(" ", "_")
    if kind not in _TYPES:
        raise invalid("unknown event type", type=kind[:64])
    event = msgspec.convert({k: v for k, v in raw.items() if v is not None}, decodable(_TYPES[kind]), strict=False)
    if event.timestamp is not None and not abs(event.timestamp) < _LATEST_MOMENT:
        raise invalid("timestamp must be in milliseconds")
    return kind, event


def _stored(kind: str, event: _Event, raw: Json, call: Call) -> StoredChunk | Scalar | Report:
    timestamp = int(call.now.timestamp() * 1000 if event.timestamp is None else event.timestamp)
    worker = event.worker or call.worker
    if isinstance(event, _Log):
        own = (event.metric, event.variant, event.iter)
        return StoredChunk(event.task, timestamp, event.level, worker, event.msg, *own)
    assert isinstance(event, _Measured)
    if isinstance(event, _ScalarEvent):
        return Scalar(event.task, event.metric, event.variant, event.iter, timestamp, event.value, worker)
    body = {**raw, "type": kind, "worker": worker}
    return Report(event.task, kind, event.metric, event.variant, event.iter, timestamp, body)


class _Owners:
    """The tasks and models that a batch names, each looked up once."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._seen: dict[tuple[str, bool], str | None] = {}
        self._lock_rule: dict[str, bool] = {}

    @property
    def tasks(self) -> Iterable[str]:
        return [id for (id, model), status in self._seen.items() if not model and status is not None]

    def check(self, event: _Event) -> None:
        """
        Raises:
            ApiFault: the task or model does not exist, or is published.
        """
        key = (event.task, event.model_event)
        if key not in self._seen:
            self._seen[key] = self._status(*key)
        status = self._seen[key]
        if status is None:
            raise invalid("Invalid model id" if event.model_event else "Invalid task id", id=event.task[:64])
        if self._lock_rule.setdefault(event.task, event.allow_locked) != event.allow_locked:
            raise MixedLockFault("the events of one task must agree on allow_locked", task=event.task)
        if status in _LOCKED and not event.allow_locked:
            raise invalid("a published task takes no events", task=event.task)

    def _status(self, id: str, model: bool) -> str | None:
        if model:
            return "" if models.get(self._call.db, id, ("id",)) else None
        task = tasks.get(self._call.db, id, ("status",))
        return None if task is None else str(task["status"])


def _note(call: Call, touched: Iterable[str], scalars: list[Scalar], reports: list[Report]) -> None:
    """Leave on each task that it is alive, how far it is, and its latest figures."""
    by_task: dict[str, list[Scalar]] = defaultdict(list)
    latest: dict[str, int] = {}
    for scalar in scalars:
        if scalar.iter != SINGLE_VALUE:
            latest[scalar.task] = max(scalar.iter, latest.get(scalar.task, 0))
        by_task[scalar.task].append(scalar)
    for report in reports:
        latest[report.task] = max(report.iter, latest.get(report.task, 0))
    for task in touched:
        changes: dict[str, Any] = {"last_update": call.time}
        if task in latest or task in by_task:
            before = tasks.get(call.db, task, ("last_iteration", "last_metrics")) or {}
            changes["last_iteration"] = max(latest.get(task, 0), before.get("last_iteration", 0))
            changes["last_metrics"] = _latest(before.get("last_metrics", {}), by_task.get(task, []))
        tasks.update(call.db, task, changes)


def _latest(metrics: Json, scalars: list[Scalar]) -> Json:
    """``{md5(metric): {md5(variant): {metric, variant, value, min_value, max_value, …}}}``, as clients look it up."""
    result = {key: dict(variants) for key, variants in metrics.items()}
    shown = sum(map(len, result.values()))
    for scalar in sorted(scalars, key=lambda s: s.iter):
        if scalar.value != scalar.value:
            continue
        old = result.get(_key(scalar.metric), {}).get(_key(scalar.variant), {})
        if not old and shown >= _MOST_LATEST:
            continue
        shown += 0 if old else 1
        variants = result.setdefault(_key(scalar.metric), {})
        new = {**old, "metric": scalar.metric, "variant": scalar.variant, "value": scalar.value}
        # A series that an older version began is counted from here on.
        count = old.get("count", 0) + 1
        new |= {"count": count, "mean_value": old.get("mean_value", 0.0) * (1 - 1 / count) + scalar.value / count}
        if "first_value" not in old:
            new |= {"first_value": scalar.value, "first_value_iteration": scalar.iter}
        if not old or scalar.value < old["min_value"]:
            new |= {"min_value": scalar.value, "min_value_iteration": scalar.iter}
        if not old or scalar.value > old["max_value"]:
            new |= {"max_value": scalar.value, "max_value_iteration": scalar.iter}
        variants[_key(scalar.variant)] = new
    return result


def _key(name: str) -> str:
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
