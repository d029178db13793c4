"""``events.*``: single debug images and plots, one after the other; deletion of events."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec

from hpc_agent.server.action import Access, Answer, Call, Int64, RequestBody, Service
from hpc_agent.server.api_fault import ApiFault, invalid
from hpc_agent.server.services.events_read import OwnerRequest, check_owner, event_of
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import event_queries, event_store
from hpc_agent.server.store.documents import models
from hpc_agent.server.store.event_queries import Sample
from hpc_agent.server.store.event_store import DEBUG_IMAGE, Report
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import INVALID_MODEL_ID

service = Service("events")

_PLOT = "plot"


class SampleRequest(OwnerRequest, frozen=True, kw_only=True):
    metric: str
    variant: str = ""
    iteration: Int64 | None = None
    navigate_current_metric: bool = True
    refresh: bool = False
    scroll_id: str | None = None


class NextSampleRequest(OwnerRequest, frozen=True, kw_only=True):
    scroll_id: str
    navigate_earlier: bool = True
    next_iteration: bool = False


class _SamplePlace(msgspec.Struct, frozen=True):
    """What a scroll id holds."""

    metric: str
    variant: str
    iter: Int64
    one_metric: bool


@service.action(SampleRequest, Access.READ)
def get_debug_image_sample(request: SampleRequest, call: Call) -> Answer:
    """One debug image of a variant: of an iteration, or the last."""
    return _sample(request, call, DEBUG_IMAGE)


@service.action(NextSampleRequest, Access.READ)
def next_debug_image_sample(request: NextSampleRequest, call: Call) -> Answer:
    """The debug image before or after the one that ``scroll_id`` is at."""
    return _next(request, call, DEBUG_IMAGE)


@service.action(SampleRequest, Access.READ)
def get_plot_sample(request: SampleRequest, call: Call) -> Answer:
    """A metric's plots, or one variant's, of an iteration or the last."""
    return _sample(request, call, _PLOT)


@service.action(NextSampleRequest, Access.READ)
def next_plot_sample(request: NextSampleRequest, call: Call) -> Answer:
    """The plots before or after those that ``scroll_id`` is at."""
    return _next(request, call, _PLOT)


def _sample(request: SampleRequest, call: Call, type: str) -> Answer:
    check_owner(request, call)
    variant = request.variant
    if not variant and type == DEBUG_IMAGE:
        variants = event_queries.metrics_of(call.db, [request.task], type).get(request.task, {}).get(request.metric)
        variant = variants[0] if variants else ""
    found = event_queries.samples_at(call.db, request.task, type, request.metric, variant, request.iteration)
    iteration = found[0].iter if found else request.iteration or 0
    place = _SamplePlace(request.metric, variant, iteration, request.navigate_current_metric)
    return _answer(call, request.task, type, found, place)


def _next(request: NextSampleRequest, call: Call, type: str) -> Answer:
    check_owner(request, call)
    try:
        place = msgspec.json.decode(request.scroll_id, type=decodable(_SamplePlace))
    except msgspec.MsgspecError:
        raise invalid("scroll_id is not one that this server gave out") from None
    found = event_queries.neighbours_of(
        call.db,
        request.task,
        type,
        Sample(place.metric, place.variant, place.iter),
        earlier=request.navigate_earlier,
        one_metric=place.one_metric,
        next_iteration=request.next_iteration,
    )
    if found:
        variant = found[0].variant if place.variant else ""
        place = _SamplePlace(found[0].metric, variant, found[0].iter, place.one_metric)
    return _answer(call, request.task, type, found, place)


def _answer(call: Call, task: str, type: str, found: list[Report], place: _SamplePlace) -> Answer:
    """Plots are answered as a list, those of all variants where none is asked for."""
    ends = event_queries.iterations_of(call.db, task, type, place.metric, place.variant)
    events = [event_of(report) for report in found]
    answer: Answer = {
        "scroll_id": msgspec.json.encode(place).decode(),
        "event": events[0] if events else None,
        "min_iteration": ends[0] if ends else None,
        "max_iteration": ends[1] if ends else None,
    }
    return {**answer, "events": events} if type == _PLOT else answer


class ClearLogRequest(RequestBody, frozen=True):
    task: str
    threshold_sec: Annotated[int, msgspec.Meta(ge=0, le=10**10)] | None = None
    allow_locked: bool = False
    exclude_metrics: list[str] | None = None
    include_metrics: list[str] | None = None


class DeleteForModelRequest(RequestBody, frozen=True):
    model: str
    allow_locked: bool = False


class ScrollRequest(RequestBody, frozen=True):
    scroll_id: str = ""


@service.action(ClearLogRequest, Access.WRITE)
def clear_task_log(request: ClearLogRequest, call: Call) -> Answer:
    """Delete the console of a task, or what of it is older than so many seconds, or of some metrics alone."""
    existing_task(call, request.task, ("status",))
    before = None
    if request.threshold_sec is not None:
        before = int(call.now.timestamp() * 1000 - timedelta(seconds=request.threshold_sec).total_seconds() * 1000)
    deleted = event_queries.delete_console(
        call.db, request.task, before, only=request.include_metrics, but_for=request.exclude_metrics
    )
    return {"deleted": deleted}


@service.action(DeleteForModelRequest, Access.WRITE)
def delete_for_model(request: DeleteForModelRequest, call: Call) -> Answer:
    """Delete all events of a model."""
    if models.get(call.db, request.model, ("id",)) is None:
        raise ApiFault(INVALID_MODEL_ID, id=request.model[:64])
    return {"deleted": bool(event_store.delete_for_task(call.db, request.model))}


@service.action(ScrollRequest, Access.READ)
def clear_scroll(request: ScrollRequest, call: Call) -> Answer:
    """Nothing to do: a scroll id of this server holds the place itself."""
    return {}
