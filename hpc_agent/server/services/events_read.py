"""Events out: console in both directions, curves, single values, plots, images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import groupby
from typing import Annotated, Literal

import msgspec

from hpc_agent.server.action import Access, Answer, Call, Ids, Int64, Json, RequestBody, Service, unique
from hpc_agent.server.api_fault import invalid
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import event_store, scalar_store
from hpc_agent.server.store.documents import Collection, models, tasks
from hpc_agent.server.store.event_pages import EventPlace, count_events, events_after, is_place
from hpc_agent.server.store.event_store import DEBUG_IMAGE, Report
from hpc_agent.struct_types import decodable

service = Service("events")

BatchSize = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
HistogramKey = Literal["iter", "timestamp", "iso_time"]
_DEFAULT_SAMPLES = 6000
_LATEST_MOMENT = 2.0**53
_Place = tuple[Int64, int, list[Int64 | str]]
"""An ``EventPlace`` as clients send it back."""


class OwnerRequest(RequestBody, frozen=True):
    """``task`` is a model's id where ``model_events`` is set."""

    task: str
    model_events: bool = False


class MetricVariants(RequestBody, frozen=True):
    metric: str
    variants: list[str] = []


MetricFilter = Annotated[list[MetricVariants], msgspec.Meta(max_length=1000)]


class LogRequest(OwnerRequest, frozen=True):
    batch_size: BatchSize = 100
    order: Literal["asc", "desc"] | None = None
    navigate_earlier: bool = True
    from_timestamp: float | None = None
    metrics: MetricFilter = []


class EventsRequest(OwnerRequest, frozen=True):
    event_type: str | None = None
    order: Literal["asc", "desc"] = "asc"
    batch_size: BatchSize = 500
    scroll_id: str | None = None


class HistogramRequest(OwnerRequest, frozen=True):
    key: HistogramKey = "iter"
    samples: int = _DEFAULT_SAMPLES
    metrics: MetricFilter = []


class SingleValuesRequest(RequestBody, frozen=True):
    tasks: Ids
    metrics: MetricFilter = []
    model_events: bool = False


class PlotsRequest(OwnerRequest, frozen=True):
    iters: BatchSize = 1
    metrics: MetricFilter = []


class TaskMetric(RequestBody, frozen=True):
    task: str
    metric: str | None = None
    variants: list[str | None] = []


class ImagesRequest(RequestBody, frozen=True):
    metrics: Annotated[list[TaskMetric], msgspec.Meta(max_length=100)]
    iters: BatchSize = 1
    navigate_earlier: bool = True
    refresh: bool = False
    scroll_id: str | None = None


class DeleteEventsRequest(RequestBody, frozen=True):
    task: str


def check_owner(request: OwnerRequest, call: Call) -> None:
    if not request.model_events:
        existing_task(call, request.task, ("status",))


@service.action(LogRequest, Access.READ)
def get_task_log(request: LogRequest, call: Call) -> Answer:
    """Console chunks nearest to ``from_timestamp`` (without it the newest, or oldest), in the order asked for."""
    check_owner(request, call)
    start = None if request.from_timestamp is None else _milliseconds(request.from_timestamp)
    earlier = request.navigate_earlier
    metrics = [item.metric for item in request.metrics] or None
    found = event_store.chunks(
        call.db, request.task, earlier=earlier, start=start, limit=request.batch_size, metrics=metrics
    )
    nearest_first = "desc" if earlier else "asc"
    if (request.order or nearest_first) != nearest_first:
        found.reverse()
    return {
        "events": [{"type": "log", **_fields(chunk)} for chunk in found],
        "returned": len(found),
        "total": event_store.count_chunks(call.db, request.task, metrics),
    }


def _milliseconds(moment: float) -> int:
    if not abs(moment) < _LATEST_MOMENT:
        raise invalid("from_timestamp must be a time in milliseconds")
    return int(moment)


def _fields(chunk: event_store.StoredChunk) -> Json:
    return {
        "task": chunk.task,
        "timestamp": chunk.timestamp,
        "level": chunk.level,
        "worker": chunk.worker,
        "msg": chunk.msg,
        "metric": chunk.metric or "",
        "variant": chunk.variant or "",
        "iter": chunk.iter or 0,
    }


@service.action(EventsRequest, Access.READ)
def get_task_events(request: EventsRequest, call: Call) -> Answer:
    """Events of a task in order of time; ``scroll_id`` continues behind the last one."""
    check_owner(request, call)
    kind = request.event_type.replace(" ", "_") if request.event_type else None
    page = events_after(
        call.db,
        request.task,
        kind,
        _event_place(request.scroll_id),
        newest_first=request.order == "desc",
        limit=request.batch_size,
    )
    return {
        "events": page.events,
        "returned": len(page.events),
        "total": count_events(call.db, request.task, kind),
        "scroll_id": msgspec.json.encode(page.end).decode() if page.end else "",
    }


def _event_place(scroll: str | None) -> EventPlace | None:
    if not scroll:
        return None
    try:
        place = EventPlace(*msgspec.json.decode(scroll, type=decodable(_Place)))
    except msgspec.MsgspecError:
        place = None
    if place is None or not is_place(place):
        raise invalid("scroll_id is not one that this server gave out", scroll_id=scroll[:64])
    return place


@service.action(HistogramRequest, Access.READ)
def scalar_metrics_iter_histogram(request: HistogramRequest, call: Call) -> Answer:
    """Scalars of a task, sampled: ``{metric: {variant: {name, x, y}}}``."""
    check_owner(request, call)
    return curves_of(call, request.task, request.key, max(request.samples, 0), request.metrics)


def curves_of(
    call: Call, task: str, key: HistogramKey, samples: int, metrics: list[MetricVariants]
) -> dict[str, dict[str, Json]]:
    """``{metric: {variant: {name, x, y}}}``; ``samples`` 0 for all points."""
    curves: dict[str, dict[str, Json]] = defaultdict(dict)
    for curve in scalar_store.series(
        call.db,
        task,
        axis="iter" if key == "iter" else "timestamp",
        samples=samples,
        metrics=[(wanted.metric, wanted.variants) for wanted in metrics],
    ):
        x = [_iso_time(moment) for moment in curve.x] if key == "iso_time" else curve.x
        label = {"x_axis_label": curve.x_axis_label} if curve.x_axis_label else {}
        curves[curve.metric][curve.variant] = {"name": curve.variant, "x": x, "y": curve.y, **label}
    return dict(curves)


def _iso_time(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


def is_wanted(metrics: Sequence[MetricVariants], metric: str, variant: str) -> bool:
    """Whether a filter of metrics, each with its variants or all of them, has this one; an empty one has all."""
    return not metrics or any(m.metric == metric and (not m.variants or variant in m.variants) for m in metrics)


@service.action(SingleValuesRequest, Access.READ)
def get_task_single_value_metrics(request: SingleValuesRequest, call: Call) -> Answer:
    """Single-value metrics of tasks, or of models with ``model_events``."""
    found = []
    collection: Collection = models if request.model_events else tasks
    for id in unique(request.tasks):
        values = [
            {"metric": s.metric, "variant": s.variant, "value": s.value, "timestamp": s.timestamp}
            for s in scalar_store.single_values(call.db, id)
            if is_wanted(request.metrics, s.metric, s.variant)
        ]
        name = (collection.get(call.db, id, ("name",)) or {}).get("name", "")
        if values:
            found.append({"task": id, "task_name": name, "values": values})
    return {"tasks": found}


@service.action(PlotsRequest, Access.READ)
def get_task_plots(request: PlotsRequest, call: Call) -> Answer:
    """Plots of a task."""
    check_owner(request, call)
    found = [
        event_of(report)
        for report in event_store.latest_reports(call.db, request.task, "plot", request.iters)
        if is_wanted(request.metrics, report.metric, report.variant)
    ]
    return {"plots": found, "returned": len(found), "total": len(found)}


def event_of(report: Report) -> Json:
    return {
        **report.body,
        "task": report.task,
        "type": report.type,
        "metric": report.metric,
        "variant": report.variant,
        "iter": report.iter,
        "timestamp": report.timestamp,
    }


@service.action(ImagesRequest, Access.READ)
def debug_images(request: ImagesRequest, call: Call) -> Answer:
    """Debug images of ``iters`` iterations a task; ``scroll_id`` continues after the last iteration of each."""
    return _by_iteration(request, call, DEBUG_IMAGE)


@service.action(ImagesRequest, Access.READ)
def plots(request: ImagesRequest, call: Call) -> Answer:
    """Plots of ``iters`` iterations a task; ``scroll_id`` continues after the last iteration of each."""
    return _by_iteration(request, call, "plot")


def _by_iteration(request: ImagesRequest, call: Call, type: str) -> Answer:
    place = {} if request.refresh else _place(request.scroll_id)
    shown = []
    for wanted in request.metrics:
        found = event_store.reports_by_iteration(
            call.db,
            wanted.task,
            type,
            metric=wanted.metric,
            earlier=request.navigate_earlier,
            start=place[wanted.task][0 if request.navigate_earlier else 1] if wanted.task in place else None,
            iterations=request.iters,
        )
        variants = {variant for variant in wanted.variants if variant is not None}
        by_iteration = [
            {
                "iter": iteration,
                "events": [event_of(report) for report in group if not variants or report.variant in variants],
            }
            for iteration, group in groupby(found, key=lambda report: report.iter)
        ]
        if found:
            shown_now = [report.iter for report in found]
            place[wanted.task] = min(shown_now), max(shown_now)
        shown.append({"task": wanted.task, "iterations": by_iteration})
    return {"metrics": shown, "scroll_id": msgspec.json.encode(place).decode()}


def _place(scroll: str | None) -> dict[str, tuple[int, int]]:
    """The first and the last iteration that were shown of each task."""
    try:
        return msgspec.json.decode(scroll, type=decodable(dict[str, tuple[Int64, Int64]])) if scroll else {}
    except msgspec.MsgspecError:
        raise invalid("scroll_id is not one that this server gave out") from None


@service.action(DeleteEventsRequest, Access.WRITE)
def delete_for_task(request: DeleteEventsRequest, call: Call) -> Answer:
    """Delete all events of a task."""
    existing_task(call, request.task, ("status",))
    return {"deleted": bool(event_store.delete_for_task(call.db, request.task))}
