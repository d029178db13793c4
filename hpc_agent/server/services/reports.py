"""``reports.*`` and ``pipelines.*``: tasks of their own kinds, in hidden projects."""

from __future__ import annotations

import msgspec

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server import joined
from hpc_agent.server.action import Access, Answer, Call, Ids, Json, Name, RequestBody, Service
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.listing import HIDDEN
from hpc_agent.server.services import events_metrics, events_read
from hpc_agent.server.services.deletion import ARCHIVED, remove_task
from hpc_agent.server.services.document_names import valid_name
from hpc_agent.server.services.events_metrics import MultiHistogramRequest, MultiPlotsRequest
from hpc_agent.server.services.events_read import ImagesRequest, MetricFilter, SingleValuesRequest, TaskMetric
from hpc_agent.server.services.pipeline_steps import CONTROLLER, RUN_FIELDS, steps_of
from hpc_agent.server.services.projects import existing_project, present_project, project_named
from hpc_agent.server.services.projects_queries import ProjectTagsRequest, tags_of
from hpc_agent.server.services.publication import publish_task
from hpc_agent.server.services.task_shapes import hyperparam
from hpc_agent.server.services.tasks import OPTIONS
from hpc_agent.server.services.tasks_status import EnqueueRequest, enqueue
from hpc_agent.server.services.tasks_write import CloneRequest, clone, insert_task
from hpc_agent.server.services.transitions import existing_task
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import Document, models, projects, tasks
from hpc_agent.server.store.project_queries import in_projects
from hpc_agent.server.store.query import Query
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import (
    CANNOT_REMOVE_ALL_RUNS,
    INVALID_TASK_STATUS,
    NOT_A_REPORT,
    TASK_CANNOT_BE_DELETED,
)

service = Service("reports")
pipelines = Service("pipelines")
services = (service, pipelines)

_FOLDER = ".reports"
_TAG = "reports"
_TYPE = "report"


class _Content(RequestBody, frozen=True, kw_only=True):
    tags: list[str] | None = None
    comment: str | None = None
    report: str | None = None
    report_assets: list[str] | None = None


class CreateReportRequest(_Content, frozen=True, kw_only=True):
    name: Name
    project: str | None = None


class UpdateReportRequest(_Content, frozen=True, kw_only=True):
    task: str
    name: Name | None = None


class OneReportRequest(RequestBody, frozen=True):
    task: str
    message: str = ""


class DeleteReportRequest(RequestBody, frozen=True):
    task: str
    force: bool = False


class MoveReportRequest(RequestBody, frozen=True):
    task: str
    project: str | None = None
    project_name: str | None = None


def _content(request: _Content) -> Json:
    names = ("name", "tags", "comment", "report", "report_assets")
    content = {name: value for name in names if (value := getattr(request, name, None)) is not None}
    return {**content, "name": valid_name(content["name"])} if "name" in content else content


def _folder(call: Call, project: str | None) -> str:
    """The hidden project for reports inside ``project``, or at the top level."""
    above = existing_project(call, project)["name"] if project else ""
    if above == _FOLDER or above.endswith(f"/{_FOLDER}"):
        return str(project)
    name = f"{above}/{_FOLDER}" if above else _FOLDER
    return project_named(call, name, system_tags=[_TAG, HIDDEN])


def _report(call: Call, id: str, *fields: str) -> Document:
    task = existing_task(call, id, ("type", "status", *fields))
    if task["type"] != _TYPE:
        raise ApiFault(NOT_A_REPORT, task=id, type=task["type"])
    return task


@service.action(CreateReportRequest, Access.WRITE)
def create(request: CreateReportRequest, call: Call) -> Answer:
    """Create a report: a hidden task with a text, in the hidden project for reports of a project."""
    folder = _folder(call, request.project)
    id = insert_task(call, **{"type": _TYPE, "system_tags": [HIDDEN, _TAG], "project": folder, **_content(request)})
    return {"id": id, "project_id": folder}


@service.action(UpdateReportRequest, Access.WRITE)
def update(request: UpdateReportRequest, call: Call) -> Answer:
    """Change a report; the text of a published one stays."""
    task = _report(call, request.task)
    changes = _content(request)
    if task["status"] != TaskStatus.CREATED.value and changes.keys() & {"report", "report_assets"}:
        raise ApiFault(INVALID_TASK_STATUS, "the text of a published report stays", task=request.task)
    stored = {**changes, "last_update": call.time, "last_change": call.time}
    return {"updated": tasks.update(call.db, request.task, stored), "fields": changes}


@service.action(OneReportRequest, Access.WRITE)
def publish(request: OneReportRequest, call: Call) -> Answer:
    """Set a report published."""
    task = _report(call, request.task, "models")
    return publish_task(call, task, force=task["status"] == TaskStatus.CREATED.value, message=request.message)


@service.action(OneReportRequest, Access.WRITE)
def archive(request: OneReportRequest, call: Call) -> Answer:
    """Archive a report."""
    return {"archived": _tag(call, request, archived=True)}


@service.action(OneReportRequest, Access.WRITE)
def unarchive(request: OneReportRequest, call: Call) -> Answer:
    """Bring an archived report back."""
    return {"unarchived": _tag(call, request, archived=False)}


def _tag(call: Call, request: OneReportRequest, *, archived: bool) -> int:
    tags = [tag for tag in _report(call, request.task, "system_tags")["system_tags"] if tag != ARCHIVED]
    changes = {"system_tags": [*tags, ARCHIVED] if archived else tags, "status_message": request.message}
    return tasks.update(call.db, request.task, {**changes, "last_change": call.time})


@service.action(DeleteReportRequest, Access.WRITE)
def delete(request: DeleteReportRequest, call: Call) -> Answer:
    """Delete a draft or an archived report, with force any."""
    task = _report(call, request.task, "system_tags", "models", "execution")
    if not request.force and task["status"] != TaskStatus.CREATED.value and ARCHIVED not in task["system_tags"]:
        raise ApiFault(TASK_CANNOT_BE_DELETED, "due to its status, use force=true", task=request.task)
    remove_task(call, task, force=request.force)
    return {"deleted": True}


@service.action(MoveReportRequest, Access.WRITE)
def move(request: MoveReportRequest, call: Call) -> Answer:
    """Move a report to the reports of another project, or of the top level."""
    before = _report(call, request.task, "project").get("project")
    target = request.project or (project_named(call, request.project_name) if request.project_name else None)
    folder = _folder(call, target)
    tasks.update(call.db, request.task, {"project": folder, "last_change": call.time})
    if before and before != folder and not tasks.count(call.db, Query((in_projects(tasks, [before]),))):
        _delete_folder(call, before)
    return {"project_id": folder}


def _delete_folder(call: Call, project: str) -> None:
    """Delete a folder of reports that is empty now."""
    if _TAG in (projects.get(call.db, project, ("system_tags",)) or {}).get("system_tags", []):
        projects.delete(call.db, project)


def _reports() -> list[q.Condition]:
    return [q.compare(q.field(tasks.table, "type"), "=", _TYPE)]


@service.action(Json, Access.READ)
def get_all_ex(request: Json, call: Call) -> Answer:
    """List reports, with what they refer to in place of ids; those of a project are in a project inside it."""
    if request.get("project"):
        request = {**request, "project": _with_root(call, request["project"]), "include_subprojects": True}
    found, paging = joined.find(call.db, tasks, request, extra=_reports(), hidden="", options=OPTIONS)
    return {"tasks": found, **paging}


def _with_root(call: Call, wanted: object) -> list[object]:
    """The projects of a filter, null among them for the reports of the top level."""
    ids = wanted if isinstance(wanted, list) else [wanted]
    return [id if id is not None else present_project(call, _FOLDER) or "" for id in ids]


@service.action(ProjectTagsRequest, Access.READ)
def get_tags(request: ProjectTagsRequest, call: Call) -> Answer:
    """Tags of all reports."""
    return {"tags": tags_of(call, tasks, _reports(), request)["tags"]}


class _Events(RequestBody, frozen=True):
    iters: events_read.BatchSize = 1
    metrics: MetricFilter = []


class _Curves(RequestBody, frozen=True):
    samples: int = 2000
    key: events_read.HistogramKey = "iter"
    metrics: MetricFilter = []


class _SingleValues(RequestBody, frozen=True):
    metrics: MetricFilter = []


class _DataRequest(RequestBody, frozen=True):
    debug_images: _Events | None = None
    plots: _Events | None = None
    scalar_metrics_iter_histogram: _Curves | None = None
    single_value_metrics: _SingleValues | None = None
    model_events: bool = False


@service.action(Json, Access.READ)
def get_task_data(request: Json, call: Call) -> Answer:
    """Tasks (or models) that a filter finds, with their plots, debug images and scalars as a report shows them."""
    wanted = msgspec.convert(request, decodable(_DataRequest), strict=False)
    own = frozenset(_DataRequest.__struct_fields__)
    of_models = wanted.model_events
    found, _ = joined.find(call.db, models if of_models else tasks, request, options=OPTIONS | own)
    ids = [task["id"] for task in found][:100]
    answer: Answer = {"tasks": found}
    if wanted.debug_images is not None:
        shown = wanted.debug_images
        of = [TaskMetric(id, item.metric, list(item.variants)) for id in ids for item in shown.metrics] or [
            TaskMetric(id) for id in ids
        ]
        images = ImagesRequest(of[:100], iters=shown.iters)
        answer["debug_images"] = events_read.debug_images(images, call)["metrics"]
    if wanted.plots is not None:
        plots = MultiPlotsRequest(ids, iters=wanted.plots.iters, metrics=wanted.plots.metrics, model_events=of_models)
        answer["plots"] = events_metrics.get_multi_task_plots(plots, call)["plots"]
    if wanted.scalar_metrics_iter_histogram is not None:
        curves = wanted.scalar_metrics_iter_histogram
        samples = min(max(curves.samples, 1), events_metrics.MOST_SAMPLES)
        histogram = MultiHistogramRequest(
            ids, samples=samples, key=curves.key, metrics=curves.metrics, model_events=of_models
        )
        sampled = events_metrics.multi_task_scalar_metrics_iter_histogram(histogram, call)
        answer["scalar_metrics_iter_histogram"] = sampled["metrics"]
    if wanted.single_value_metrics is not None:
        single = SingleValuesRequest(ids, wanted.single_value_metrics.metrics, model_events=of_models)
        answer["single_value_metrics"] = events_read.get_task_single_value_metrics(single, call)["tasks"]
    return answer


class _Argument(RequestBody, frozen=True):
    name: str
    value: str | None = None


class StartRequest(RequestBody, frozen=True):
    task: str
    queue: str | None = None
    args: list[_Argument] = []
    verify_watched_queue: bool = False


class DeleteRunsRequest(RequestBody, frozen=True):
    ids: Ids
    project: str


@pipelines.action(StartRequest, Access.WRITE)
def start_pipeline(request: StartRequest, call: Call) -> Answer:
    """A copy of a pipeline's run with other arguments, put into a queue."""
    task = existing_task(call, request.task, ("hyperparams", "name"))
    sections = task.get("hyperparams", {})
    arguments = dict(sections.get("Args", {}))
    for argument in request.args:
        present = arguments.get(argument.name, {})
        arguments[argument.name] = hyperparam({**present, "value": argument.value}, "Args", argument.name)
    name = f"{task['name'].partition(' #')[0]} #{call.now:%Y%m%d%H%M%S}"
    copy = clone(
        CloneRequest(
            request.task,
            new_task_name=name,
            new_task_hyperparams={**sections, **({"Args": arguments} if arguments else {})},
        ),
        call,
    )["id"]
    queued = enqueue(EnqueueRequest(copy, queue=request.queue, verify_watched_queue=request.verify_watched_queue), call)
    watched = {"queue_watched": queued["queue_watched"]} if "queue_watched" in queued else {}
    return {"pipeline": copy, "enqueued": bool(queued["queued"]), **watched}


@pipelines.action(DeleteRunsRequest, Access.WRITE)
def delete_runs(request: DeleteRunsRequest, call: Call) -> Answer:
    """Delete runs of a pipeline, with the tasks of their steps; one run at least stays."""
    is_run = q.compare(q.field(tasks.table, "type"), "=", CONTROLLER)
    runs = tasks.find(call.db, Query((in_projects(tasks, [request.project]), is_run), fields=RUN_FIELDS))
    wanted = set(request.ids)
    if wanted.issuperset(run["id"] for run in runs):
        raise ApiFault(CANNOT_REMOVE_ALL_RUNS, project=request.project)
    gone = [run for run in runs if run["id"] in wanted]
    for run in gone:
        for step in steps_of(call, run):
            remove_task(call, step, force=True)
        remove_task(call, run, force=True)
    return {"succeeded": [{"id": run["id"], "deleted": True} for run in gone], "failed": []}
