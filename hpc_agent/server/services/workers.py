"""Workers: who serves which queue, what runs where. Their reports keep their tasks from being called silent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from hpc_agent.server import filters
from hpc_agent.server.action import Access, Answer, Call, Int64, Json, Name, RequestBody, Service, iso
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.store import query as q
from hpc_agent.server.store import queue_rows, usage_history
from hpc_agent.server.store.connection import StoreSession
from hpc_agent.server.store.documents import Document, projects, queues, tasks, users, workers
from hpc_agent.server.store.query import Condition, Query
from hpc_agent.wire.error_kinds import INVALID_WORKER_ID

service = Service("workers")

_DEFAULT_TIMEOUT = 600
_DEFAULT_LAST_SEEN = 3600


class WorkerRequest(RequestBody, frozen=True):
    worker: Name


class RegisterRequest(WorkerRequest, frozen=True):
    queues: list[str] = []
    timeout: Int64 = _DEFAULT_TIMEOUT
    tags: list[str] = []
    system_tags: list[str] = []


class ReportRequest(WorkerRequest, frozen=True):
    timestamp: float | None = None
    task: str | None = None
    queue: str | None = None
    queues: list[str] | None = None
    tags: list[str] | None = None
    system_tags: list[str] | None = None
    machine_stats: Json | None = None


class GetAllRequest(RequestBody, frozen=True):
    last_seen: Int64 = _DEFAULT_LAST_SEEN
    tags: list[str] = []
    system_tags: list[str] = []
    worker_pattern: str | None = None


class Property(RequestBody, frozen=True):
    key: str
    value: Any = None
    expiry: Int64 | None = None
    """Seconds from now after which the property is forgotten."""


class SetPropertiesRequest(WorkerRequest, frozen=True):
    runtime_properties: list[Property]


def _save(call: Call, worker: str, **fields: Any) -> None:
    """Make or change the record of a worker, which shows that it is alive."""
    changes = {**fields, "last_activity_time": call.time, "ip": call.ip}
    if call.identity.task:
        changes |= call.owner  # it may be one that a killed job has left
    if workers.update(call.db, worker, changes):
        return
    workers.insert(
        call.db,
        {
            "id": worker,
            **call.owner,
            "register_time": call.time,
            "register_timeout": _DEFAULT_TIMEOUT,
            "queues": [],
            "tags": [],
            "system_tags": [],
            **changes,
        },
    )


@service.action(RegisterRequest, Access.REPORT)
def register(request: RegisterRequest, call: Call) -> Answer:
    """Register a worker."""
    _save(
        call,
        request.worker,
        queues=request.queues,
        register_timeout=request.timeout if request.timeout > 0 else _DEFAULT_TIMEOUT,
        register_time=call.time,
        tags=request.tags,
        system_tags=request.system_tags,
    )
    return {}


@service.action(WorkerRequest, Access.REPORT)
def unregister(request: WorkerRequest, call: Call) -> Answer:
    """Remove a worker from the list."""
    if not workers.delete(call.db, request.worker):
        raise ApiFault(INVALID_WORKER_ID, "no such worker is registered", worker=request.worker)
    return {}


@service.action(ReportRequest, Access.REPORT)
def status_report(request: ReportRequest, call: Call) -> Answer:
    """Report a worker's task and usage. Registers an unknown worker; a report without a task frees the worker."""
    fields: dict[str, Any] = {"task": request.task, "queue": request.queue, "last_report_time": call.time}
    for name in ("queues", "tags", "system_tags", "machine_stats"):
        if (value := getattr(request, name)) is not None:
            fields[name] = value
    _save(call, request.worker, **fields)
    if request.machine_stats:
        usage_history.add_usage(
            call.db, request.worker, _reported_at(request, call), request.task or "", request.machine_stats
        )
    if request.task:
        seen = {"last_worker": request.worker, "last_worker_report": call.time, "last_update": call.time}
        tasks.update(call.db, request.task, seen)
    return {}


def _reported_at(request: ReportRequest, call: Call) -> int:
    """Milliseconds; a client without a clock, or with a wrong one, is taken to have reported now."""
    now = int(call.now.timestamp() * 1000)
    moment = request.timestamp
    return int(moment) if moment is not None and abs(moment - now) < usage_history.KEPT_MS else now


@service.action(GetAllRequest, Access.READ)
def get_all(request: GetAllRequest, call: Call) -> Answer:
    """List workers, with their tasks and queues."""
    conditions = conditions_of(request, call)
    found = workers.find(call.db, Query(tuple(conditions), order_by=("id",)))
    return {"workers": [_shown(call, worker) for worker in found if not is_expired(worker, call.now)]}


def conditions_of(request: GetAllRequest, call: Call) -> list[Condition]:
    """Which workers a list or a count is about."""
    wanted = {"tags": request.tags, "system_tags": request.system_tags}
    conditions = [filters.listed(workers.table, name, tags) for name, tags in wanted.items() if tags]
    if 0 < request.last_seen < 10**9:
        since = iso(call.now - timedelta(seconds=request.last_seen))
        conditions.append(q.compare(q.field(workers.table, "last_activity_time"), ">=", since))
    if request.worker_pattern:
        conditions.append(filters.match(workers.table, "id", request.worker_pattern))
    return conditions


_REFERENCES = frozenset({"task", "queue", "queues", "runtime_properties", "machine_stats"})


def _shown(call: Call, worker: Document) -> Document:
    """A worker with the names of what it refers to."""
    user = users.get(call.db, worker.get("user", ""), ("name",)) or {"id": worker.get("user", ""), "name": ""}
    own = {name: value for name, value in worker.items() if name not in _REFERENCES}
    shown = {
        **own,
        "key": worker_key(worker),
        "user": user,
        "company": {"id": call.identity.company, "name": call.identity.company_name},
        "queues": [queue for id in worker.get("queues", []) if (queue := _queue(call, id))],
    }
    if queue := _queue(call, worker.get("queue", "")):
        shown["queue"] = queue
    task = tasks.get(call.db, worker.get("task", ""), ("name", "project", "started", "last_iteration"))
    if task is None:
        return shown
    shown["task"] = {
        "id": task["id"],
        "name": task["name"],
        "running_time": _milliseconds_since(call.now, task.get("started")),
        "last_iteration": task.get("last_iteration", 0),
    }
    if project := projects.get(call.db, task.get("project", ""), ("name",)):
        shown["project"] = project
    return shown


def worker_key(worker: Document) -> str:
    """By which clients tell workers of the same name apart."""
    return f"worker_{worker['company']}_{worker['user']}_{worker['id']}"


def _queue(call: Call, id: str) -> Document | None:
    queue = queues.get(call.db, id, ("name", "display_name")) if id else None
    return queue and {**queue, "num_tasks": queue_rows.count(call.db, id)}


def _milliseconds_since(now: datetime, started: str | None) -> int:
    return int((now - datetime.fromisoformat(started)).total_seconds() * 1000) if started else 0


def is_expired(worker: Document, now: datetime) -> bool:
    silent = now - datetime.fromisoformat(worker["last_activity_time"])
    return bool(silent.total_seconds() > worker.get("register_timeout", _DEFAULT_TIMEOUT))


def forget_expired(db: StoreSession, now: datetime) -> int:
    """Delete workers that were silent for longer than their timeout."""
    fields = ("last_activity_time", "register_timeout")
    gone = [worker["id"] for worker in workers.find(db, Query(fields=fields)) if is_expired(worker, now)]
    return sum(workers.delete(db, worker) for worker in gone)


def watched(call: Call, queue: str) -> bool:
    """Whether a live worker serves the queue."""
    serves = q.holds(q.field(workers.table, "queues"), queue)
    found = workers.find(call.db, Query((serves,), fields=("last_activity_time", "register_timeout")))
    return any(not is_expired(worker, call.now) for worker in found)


@service.action(WorkerRequest, Access.READ)
def get_runtime_properties(request: WorkerRequest, call: Call) -> Answer:
    """Runtime properties set for a worker."""
    worker = workers.get(call.db, request.worker, ("runtime_properties",))
    kept = (worker or {}).get("runtime_properties", [])
    now = call.now.timestamp()
    return {"runtime_properties": [p for p in kept if not p.get("expiry") or p["expiry"] > now]}


@service.action(SetPropertiesRequest, Access.REPORT)
def set_runtime_properties(request: SetPropertiesRequest, call: Call) -> Answer:
    """Set runtime properties of a worker."""
    worker = workers.get(call.db, request.worker, ("runtime_properties",))
    properties = {p["key"]: p for p in (worker or {}).get("runtime_properties", [])}
    for item in request.runtime_properties:
        expiry = None if not item.expiry else int(call.now.timestamp()) + min(item.expiry, 10**9)
        properties[item.key] = {"key": item.key, "value": item.value, "expiry": expiry}
    _save(call, request.worker, runtime_properties=list(properties.values()))
    return {"added": [item.key for item in request.runtime_properties], "removed": []}
