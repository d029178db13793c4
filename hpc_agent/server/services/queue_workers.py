"""Workers that serve a queue, as a list of queues shows them."""

from __future__ import annotations

from hpc_agent.server.action import Call, Json
from hpc_agent.server.services.workers import is_expired, worker_key
from hpc_agent.server.store import query as q
from hpc_agent.server.store.documents import tasks, workers
from hpc_agent.server.store.query import Query


def workers_of(call: Call, queue: str) -> list[Json]:
    """``[{key, name, ip, task}]`` of the live ones."""
    serves = q.holds(q.field(workers.table, "queues"), queue)
    found = workers.find(call.db, Query((serves,), order_by=("id",)))
    return [_shown(call, worker) for worker in found if not is_expired(worker, call.now)]


def _shown(call: Call, worker: Json) -> Json:
    task = tasks.get(call.db, worker.get("task", ""), ("name",))
    shown = {"key": worker_key(worker), "name": worker["id"], "ip": worker.get("ip", "")}
    return {**shown, "task": {"id": task["id"], "name": task["name"]}} if task else shown
