"""Events as clients send them → rows of the store, by the task or model that they belong to.

That is done before the transaction begins, for other writers wait for it. One bad event costs itself, not its batch.
See docs/internals/clearml-protocol.md#event-types.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from hpc_agent.server.action import Batch, Int64, Json, RequestBody
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.requests import decode
from hpc_agent.server.store.event_store import NewChunk, Report
from hpc_agent.server.store.scalar_store import NewPoint
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import VALIDATION_ERROR

_LATEST_MOMENT = 2.0**53


class _Event(RequestBody, frozen=True, tag_field="type"):
    task: str
    timestamp: float | None = None
    worker: str | None = None
    allow_locked: bool = False
    model_event: bool = False


class _Log(_Event, frozen=True, tag="log"):
    msg: str = ""
    level: str = "INFO"
    metric: str | None = None
    variant: str | None = None
    iter: Int64 | None = None


class _ScalarEvent(_Event, frozen=True, kw_only=True, tag="training_stats_scalar"):
    value: float
    metric: str = ""
    variant: str = ""
    iter: Int64 = 0
    x_axis_label: str | None = None


class _ReportEvent(_Event, frozen=True, tag="report"):
    """A plot, vector or image, whose other fields are kept as they come."""

    metric: str = ""
    variant: str = ""
    iter: Int64 = 0


_TAGS = {
    "log": "log",
    "training_stats_scalar": "training_stats_scalar",
    "training_stats_vector": "report",
    "training_debug_image": "report",
    "plot": "report",
}
_AnyEvent = _Log | _ScalarEvent | _ReportEvent
_NOTHING: Json = {}
_UNNAMED = (None, None, None)
_FREQUENT = msgspec.json.Decoder(_Log | _ScalarEvent, strict=False)


class EventOwner(NamedTuple):
    """What an event belongs to: the task or model of this id."""

    id: str
    is_model: bool
    allow_locked: bool


@dataclass
class Reported:
    """Events of one task or model. ``points`` are those of scalars, by metric and variant."""

    chunks: list[NewChunk] = field(default_factory=list)
    points: dict[tuple[str, str], list[NewPoint]] = field(default_factory=lambda: defaultdict(list))
    workers: dict[tuple[str, str], str] = field(default_factory=dict)
    """Who reported the last point of a metric and variant."""
    labels: dict[tuple[str, str], str] = field(default_factory=dict)
    """What the iterations of a metric and variant are called."""
    reports: list[Report] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.chunks) + len(self.reports) + sum(map(len, self.points.values()))


@dataclass(frozen=True)
class EventBatch:
    """The events of one call, and what was wrong with the others."""

    by_owner: dict[EventOwner, Reported]
    problems: Counter[str]

    @property
    def ids(self) -> list[str]:
        """Of the tasks and models."""
        return sorted({owner.id for owner in self.by_owner})


def parsed(batch: Batch | Json, worker: str, now: datetime) -> EventBatch:
    """The events of a batch, or one event. ``worker`` and ``now`` are for those that name none.

    Raises:
        ApiFault: a line is not a JSON object.
    """
    found = EventBatch(defaultdict(Reported), Counter())
    moment = int(now.timestamp() * 1000)
    for event, raw in _all_frequent(batch) or _one_by_one(batch, found.problems):
        try:
            _add(found, event, raw, worker, moment)
        except InvalidEventFault as error:
            found.problems[str(error)] += 1
    return found


class InvalidEventFault(ApiFault):
    """Refuses one event of a batch."""

    def __init__(self, detail: str, **data: Any) -> None:
        super().__init__(VALIDATION_ERROR, detail, **data)


def _all_frequent(batch: Batch | Json) -> list[tuple[_AnyEvent, Json]] | None:
    """The lines of a batch whose events are all of the two types that most have, read at once; None for others."""
    if not isinstance(batch, list):
        return None
    try:
        events = _FREQUENT.decode_lines(b"\n".join(batch))
    except (msgspec.MsgspecError, RecursionError):
        return None
    # Two objects on one line: not a line of JSON.
    return [(event, _NOTHING) for event in events] if len(events) == len(batch) else None


def _one_by_one(batch: Batch | Json, problems: Counter[str]) -> Iterator[tuple[_AnyEvent, Json]]:
    """The events that are valid, with all of their fields; what is wrong with the others goes to ``problems``."""
    for sent in batch if isinstance(batch, list) else [batch]:
        raw = _object(sent)
        try:
            event = _typed(raw)
        except (InvalidEventFault, msgspec.ValidationError) as error:
            problems[str(error)] += 1
        else:
            yield event, raw


def _object(sent: bytes | Json) -> Json:
    value = decode(sent) if isinstance(sent, bytes) else sent
    if not isinstance(value, dict):
        raise invalid("each line must be a JSON object")
    return value


def _typed(raw: Json) -> _AnyEvent:
    given = {name: value for name, value in raw.items() if value is not None}
    event: _AnyEvent = msgspec.convert({**given, "type": _TAGS[_kind(raw)]}, decodable(_AnyEvent), strict=False)
    return event


def _add(found: EventBatch, event: _AnyEvent, raw: Json, worker: str, moment: int) -> None:
    """``raw``: all fields of a plot, vector or image."""
    timestamp = moment if event.timestamp is None else _milliseconds(event.timestamp)
    worker = event.worker or worker
    if event.model_event and isinstance(event, _Log):
        raise InvalidEventFault("a model has no console")
    owned = found.by_owner[EventOwner(event.task, event.model_event, event.allow_locked)]
    if isinstance(event, _Log):
        line = (event.task, timestamp, event.level, worker, event.msg)
        named = event.metric, event.variant, event.iter
        owned.chunks.append(line if named == _UNNAMED else (*line, *named))
    elif isinstance(event, _ScalarEvent):
        series = (event.metric, event.variant)
        owned.points[series].append((event.iter, timestamp, event.value))
        owned.workers[series] = worker
        if event.x_axis_label:
            owned.labels[series] = event.x_axis_label
    else:
        kind = _kind(raw)
        body = {**raw, "type": kind, "worker": worker}
        owned.reports.append(Report(event.task, kind, event.metric, event.variant, event.iter, timestamp, body))


def _milliseconds(timestamp: float) -> int:
    if not abs(timestamp) < _LATEST_MOMENT:
        raise InvalidEventFault("timestamp must be in milliseconds")
    return int(timestamp)


def _kind(raw: Json) -> str:
    """
    Raises:
        InvalidEventFault: there are no events of this type.
    """
    kind = str(raw.get("type", "")).replace(" ", "_")
    if kind not in _TAGS:
        raise InvalidEventFault("unknown event type", type=kind[:64])
    return kind
