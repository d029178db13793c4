"""``events.*``: which metrics tasks have, their raw points, and those of several tasks together."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any, Literal, get_args

import msgspec

from hpc_agent.server.action import Access, Answer, Call, Ids, Json, RequestBody, Service, unique
from hpc_agent.server.api_fault import invalid
from hpc_agent.server.services.events_read import (
    BatchSize,
    HistogramKey,
    MetricFilter,
    MetricVariants,
    OwnerRequest,
    check_owner,
    curves_of,
    event_of,
    is_wanted,
)
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import event_queries, event_store, scalar_store
from hpc_agent.server.store.documents import Collection, models, tasks
from hpc_agent.server.store.event_queries import SCALAR
from hpc_agent.struct_types import decodable

service = Service("events")

_VECTOR = "training_stats_vector"
EventType = Literal["training_stats_scalar", "training_stats_vector", "training_debug_image", "plot", "log"]
FewTasks = Annotated[list[str], msgspec.Meta(max_length=100)]
"""Tasks whose curves one call compares."""
MOST_SAMPLES = 6000


class EventsOfTasksRequest(RequestBody, frozen=True):
    tasks: Ids
    model_events: bool = False


class TaskMetricsRequest(EventsOfTasksRequest, frozen=True, kw_only=True):
    event_type: EventType


class MultiMetricsRequest(EventsOfTasksRequest, frozen=True, kw_only=True):
    event_type: EventType | None = None


class MultiHistogramRequest(RequestBody, frozen=True):
    tasks: FewTasks
    samples: Annotated[int, msgspec.Meta(ge=1, le=MOST_SAMPLES)] = 2000
    key: HistogramKey = "iter"
    metrics: MetricFilter = []
    model_events: bool = False


class MultiPlotsRequest(RequestBody, frozen=True):
    tasks: FewTasks
    iters: BatchSize = 1
    metrics: MetricFilter = []
    model_events: bool = False
    last_iters_per_task_metric: bool = True


class MetricDataRequest(OwnerRequest, frozen=True, kw_only=True):
    metric: str
    scroll_id: str | None = None
    no_scroll: bool = False


class RawRequest(OwnerRequest, frozen=True, kw_only=True):
    metric: MetricVariants | None = None
    key: HistogramKey = "iter"
    batch_size: BatchSize = 10_000
    count_total: bool = False
    scroll_id: str | None = None


class VectorRequest(OwnerRequest, frozen=True, kw_only=True):
    metric: str
    variant: str


class LatestValuesRequest(RequestBody, frozen=True):
    task: str


@service.action(TaskMetricsRequest, Access.READ)
def get_task_metrics(request: TaskMetricsRequest, call: Call) -> Answer:
    """Metrics of tasks that have events of one type."""
    found = event_queries.metrics_of(call.db, unique(request.tasks), request.event_type)
    return {"metrics": [{"task": task, "metrics": sorted(metrics)} for task, metrics in found.items()]}


@service.action(MultiMetricsRequest, Access.READ)
def get_multi_task_metrics(request: MultiMetricsRequest, call: Call) -> Answer:
    """Metrics and variants of events of one type, or of all, of several tasks together."""
    together: dict[str, set[str]] = defaultdict(set)
    for kind in [request.event_type] if request.event_type else get_args(EventType):
        for metrics in event_queries.metrics_of(call.db, unique(request.tasks), kind).values():
            for metric, variants in metrics.items():
                together[metric] |= set(variants)
    return {"metrics": [{"metric": metric, "variants": sorted(together[metric])} for metric in sorted(together)]}


@service.action(OwnerRequest, Access.READ)
def get_scalar_metrics_and_variants(request: OwnerRequest, call: Call) -> Answer:
    """Scalars of a task: ``{metric: [variant, …]}``."""
    return {"metrics": _metrics(request, call, SCALAR)}


@service.action(OwnerRequest, Access.READ)
def get_vector_metrics_and_variants(request: OwnerRequest, call: Call) -> Answer:
    """Vectors of a task: ``{metric: [variant, …]}``."""
    return {"metrics": _metrics(request, call, _VECTOR)}


def _metrics(request: OwnerRequest, call: Call, type: str) -> Json:
    check_owner(request, call)
    return dict(event_queries.metrics_of(call.db, [request.task], type).get(request.task, {}))


@service.action(LatestValuesRequest, Access.READ)
def get_task_latest_scalar_values(request: LatestValuesRequest, call: Call) -> Answer:
    """The last value of each scalar, and the mean of its last 100."""
    task = existing_task(call, request.task, ("name", "status", "last_iteration"))
    metrics: dict[str, list[Json]] = defaultdict(list)
    for metric, variant, last, mean in scalar_store.latest_values(call.db, request.task):
        metrics[metric].append({"name": variant, "last_value": last, "last_100_value": mean})
    listed = [{"name": metric, "variants": variants} for metric, variants in metrics.items()]
    own = {"name": task["name"], "status": task["status"], "last_iter": task.get("last_iteration", 0)}
    return {**own, "metrics": listed}


@service.action(MultiHistogramRequest, Access.READ)
def multi_task_scalar_metrics_iter_histogram(request: MultiHistogramRequest, call: Call) -> Answer:
    """Scalars of several tasks, sampled: ``{metric: {variant: {task: {name, x, y}}}}``."""
    metrics: dict[str, dict[str, Json]] = defaultdict(lambda: defaultdict(dict))
    for id, name in _named(call, request.tasks, request.model_events).items():
        for metric, variants in curves_of(call, id, request.key, request.samples, request.metrics).items():
            for variant, curve in variants.items():
                metrics[metric][variant][id] = {**curve, "name": name}
    return {"metrics": metrics}


@service.action(MultiPlotsRequest, Access.READ)
def get_multi_task_plots(request: MultiPlotsRequest, call: Call) -> Answer:
    """Plots of several tasks: ``{metric: {variant: {task: {iteration: {name, plots}}}}}``."""
    plots: dict[str, Any] = {}
    returned = 0
    for id, name in _named(call, request.tasks, request.model_events).items():
        for report in event_store.latest_reports(call.db, id, "plot", request.iters):
            if not is_wanted(request.metrics, report.metric, report.variant):
                continue
            of_task = plots.setdefault(report.metric, {}).setdefault(report.variant, {}).setdefault(id, {})
            of_task.setdefault(str(report.iter), {"name": name, "plots": []})["plots"].append(event_of(report))
            returned += 1
    return {"plots": plots, "returned": returned, "total": returned, "scroll_id": ""}


def _named(call: Call, ids: list[str], model_events: bool) -> dict[str, str]:
    """The names of those of the tasks or models that are there."""
    collection: Collection = models if model_events else tasks
    found = {id: collection.get(call.db, id, ("name",)) for id in unique(ids)}
    return {id: document["name"] for id, document in found.items() if document is not None}


@service.action(MetricDataRequest, Access.READ)
def get_scalar_metric_data(request: MetricDataRequest, call: Call) -> Answer:
    """The points of one metric as events, 10,000 at a time."""
    check_owner(request, call)
    place = None if request.no_scroll else _place(request.scroll_id)
    found = scalar_store.points(call.db, request.task, request.metric, (), after=place, limit=10_000)
    events = [
        {
            "type": SCALAR,
            "task": request.task,
            "metric": request.metric,
            "variant": point.variant,
            "iter": point.iter,
            "timestamp": point.timestamp,
            "value": point.value,
        }
        for point in found
    ]
    total = scalar_store.count_points(call.db, request.task, request.metric, ())
    return {"events": events, "returned": len(events), "total": total, "scroll_id": _scroll(place, found)}


@service.action(RawRequest, Access.READ)
def scalar_metrics_iter_raw(request: RawRequest, call: Call) -> Answer:
    """The points of one metric without sampling: ``{variant: {iter, y, timestamp}}``."""
    check_owner(request, call)
    if request.metric is None:
        raise invalid("give the metric")
    metric, variants = request.metric.metric, request.metric.variants
    place, size = _raw_place(request)
    found = scalar_store.points(call.db, request.task, metric, variants, after=place, limit=size)
    axes: dict[str, Json] = defaultdict(lambda: {"iter": [], "y": [], "timestamp": []})
    for point in found:
        axes[point.variant]["iter"].append(point.iter)
        axes[point.variant]["y"].append(point.value)
        axes[point.variant]["timestamp"].append(point.timestamp)
    scroll = msgspec.json.encode((size, _scroll(place, found))).decode()
    answer: Answer = {"variants": axes, "returned": len(found), "scroll_id": scroll}
    if request.count_total:
        answer["total"] = scalar_store.count_points(call.db, request.task, metric, variants)
    return answer


def _raw_place(request: RawRequest) -> tuple[tuple[str, int] | None, int]:
    """Where the next page begins, and its size: that of the first page holds for all that follow."""
    if not request.scroll_id:
        return None, request.batch_size
    try:
        size, place = msgspec.json.decode(request.scroll_id, type=decodable(tuple[BatchSize, str]))
    except msgspec.MsgspecError:
        raise invalid("scroll_id is not one that this server gave out") from None
    return _place(place), size


def _place(scroll: str | None) -> tuple[str, int] | None:
    try:
        place = msgspec.json.decode(scroll, type=decodable(tuple[str, int] | None)) if scroll else None
    except msgspec.MsgspecError:
        place = ("", 2**63)
    if place is not None and not abs(place[1]) < 2**63:
        raise invalid("scroll_id is not one that this server gave out")
    return place


def _scroll(place: tuple[str, int] | None, found: list[scalar_store.Point]) -> str:
    last = (found[-1].variant, found[-1].iter) if found else place
    return msgspec.json.encode(last).decode()


@service.action(VectorRequest, Access.READ)
def vector_metrics_iter_histogram(request: VectorRequest, call: Call) -> Answer:
    """The newest 100 vectors of a variant, oldest first."""
    check_owner(request, call)
    found = event_queries.reports_of_variant(call.db, request.task, _VECTOR, request.metric, request.variant, 100)
    return {"images": [event_of(report) for report in found]}
