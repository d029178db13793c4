"""Queues. ``remove_task`` is the compare-and-set that a job claims its task with.

See docs/internals/clearml-protocol.md#claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server import joined, listing
from hpc_agent.server.action import Access, Answer, Call, Int64, Json, RequestBody, Service, Transaction, given
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.services.document_names import valid_name
from hpc_agent.server.services.metadata import metadata_by_key
from hpc_agent.server.services.queue_workers import workers_of
from hpc_agent.server.services.transitions import change_status, existing_task
from hpc_agent.server.store import query as q
from hpc_agent.server.store import queue_rows, usage_history
from hpc_agent.server.store.documents import Document, new_id, queues, tasks
from hpc_agent.server.store.query import Query
from hpc_agent.server.store.queue_rows import EntryRow
from hpc_agent.struct_types import decodable
from hpc_agent.wire.error_kinds import (
    INVALID_QUEUE_ID,
    MULTIPLE_DEFAULT_QUEUES,
    NAME_TAKEN,
    NO_DEFAULT_QUEUE,
    QUEUE_NOT_EMPTY,
    TASK_ALREADY_QUEUED,
    TASK_NOT_IN_QUEUE,
)

service = Service("queues")
_GLUE_TAG = "k8s-glue"


class QueueRequest(RequestBody, frozen=True):
    queue: str


class OneQueueRequest(QueueRequest, frozen=True):
    max_task_entries: Int64 | None = None


class CreateQueueRequest(RequestBody, frozen=True):
    name: str
    display_name: str | None = None
    tags: list[str] = []
    system_tags: list[str] = []
    metadata: Json | list[Json] | None = None


class UpdateQueueRequest(QueueRequest, frozen=True):
    name: str | None = None
    display_name: str | None = None
    tags: list[str] | None = None
    system_tags: list[str] | None = None
    metadata: Json | list[Json] | None = None


class DeleteQueueRequest(QueueRequest, frozen=True):
    force: bool = False


class NextTaskRequest(QueueRequest, frozen=True):
    get_task_info: bool = False
    task: str | None = None


class SetMetadataRequest(QueueRequest, frozen=True):
    metadata: list[Json]
    replace_metadata: bool = False


class DeleteQueueMetadataRequest(QueueRequest, frozen=True):
    keys: list[str]


class EntryRequest(QueueRequest, frozen=True):
    task: str


class RemoveRequest(EntryRequest, frozen=True):
    update_task_status: bool = False


class _Entries(RequestBody, frozen=True):
    max_task_entries: Annotated[int, msgspec.Meta(ge=0)] | None = None


OPTIONS = frozenset(_Entries.__struct_fields__)
"""Fields of a ``queues.get_all`` that are not filters."""


def existing_queue(call: Call, queue: str) -> Document:
    """
    Raises:
        ApiFault: 400/701.
    """
    found = queues.get(call.db, queue)
    if found is None:
        raise ApiFault(INVALID_QUEUE_ID, id=queue)
    return found


def create_queue(call: Call, name: str, **fields: object) -> str:
    """The id of a new queue.

    Raises:
        ApiFault: 400/800, the name is too short; 400/801, a queue has it.
    """
    name = valid_name(name)
    refuse_taken_name(call, name)
    return insert_queue(call, name, **call.owner, **fields)


def insert_queue(call: Transaction, name: str, **fields: object) -> str:
    """Add a queue of a name that is free; returns its id."""
    queue = {
        "id": new_id(),
        "name": name,
        "created": call.time,
        "last_update": call.time,
        "tags": [],
        "system_tags": [],
        "metadata": {},
        **fields,
    }
    queues.insert(call.db, queue)
    return str(queue["id"])


def ensure_default_queue(call: Transaction, owner: Json) -> None:
    """Make the queue ``default`` on a server that has no queue, as ClearML's server does at its first start."""
    if queues.count(call.db, Query()) == 0:
        insert_queue(call, "default", **owner, system_tags=["default"])


def note_length(call: Call, queue: str) -> None:
    """Record the length of a queue that has changed."""
    usage_history.add_queue_length(call.db, queue, int(call.now.timestamp() * 1000), call.time)


def queue_named(call: Call, name: str) -> str | None:
    """The id of the queue of exactly this name."""
    named = q.compare(q.field(queues.table, "name"), "=", name)
    found = queues.find(call.db, Query((named,), order_by=("created",), fields=("id",), limit=1))
    return str(found[0]["id"]) if found else None


def refuse_taken_name(call: Call, name: str) -> None:
    """
    Raises:
        ApiFault: 400/801.
    """
    if queue_named(call, name):
        raise ApiFault(NAME_TAKEN, name=name)


def default_queue(call: Call) -> Document:
    """
    Raises:
        ApiFault: 400/707 or 708, not exactly one queue has the system tag ``default``.
    """
    condition = q.holds(q.field(queues.table, "system_tags"), "default")
    found = queues.find(call.db, Query((condition,), fields=("name",)))
    if not found:
        raise ApiFault(NO_DEFAULT_QUEUE)
    if len(found) > 1:
        raise ApiFault(MULTIPLE_DEFAULT_QUEUES, queues=[queue["id"] for queue in found])
    return found[0]


def _shown(queue: Document, waiting: Sequence[EntryRow]) -> Document:
    return {**queue, "entries": [{"task": entry.task, "added": entry.added} for entry in waiting]}


@service.action(Json, Access.READ)
def get_all(request: Json, call: Call) -> Answer:
    """List queues, with their entries."""
    wanted = listing.only_fields(request)
    # Entries are not a column: a request for them alone would look like one for all fields.
    columns = ["id" if name.startswith("entries") else name for name in wanted]
    hidden = "" if request.get("name") else _GLUE_TAG
    asked = {**request, "only_fields": columns}
    found, paging = listing.find(call.db, queues, asked, hidden=hidden, options=OPTIONS)
    if not wanted or any(name.startswith("entries") for name in wanted):
        most = msgspec.convert(request, decodable(_Entries), strict=False).max_task_entries
        waiting = queue_rows.of_queues(call.db, [queue["id"] for queue in found])
        found = [_shown(queue, waiting.get(queue["id"], [])[:most]) for queue in found]
    return {"queues": found, **paging}


@service.action(Json, Access.READ)
def get_all_ex(request: Json, call: Call) -> Answer:
    """List queues, with names of the tasks in them, and the workers that serve them."""
    wanted = listing.only_fields(request)
    answer = get_all({**request, "only_fields": [_top(name) for name in wanted]}, call)
    only = wanted or ["entries.task.name"]
    found = joined.expand(call.db, queues, answer["queues"], only)
    if not wanted or any(_top(name) == "workers" for name in wanted):
        found = [{**queue, "workers": workers_of(call, queue["id"])} for queue in found]
    return {**answer, "queues": found}


def _top(name: str) -> str:
    return "id" if name.startswith("workers") else name.partition(".")[0]


@service.action(OneQueueRequest, Access.READ)
def get_by_id(request: OneQueueRequest, call: Call) -> Answer:
    """One queue, with its entries."""
    queue = existing_queue(call, request.queue)
    return {"queue": _shown(queue, queue_rows.of_queue(call.db, request.queue, request.max_task_entries))}


@service.action(RequestBody, Access.READ)
def get_default(request: RequestBody, call: Call) -> Answer:
    """The default queue."""
    return dict(default_queue(call))


@service.action(QueueRequest, Access.READ)
def get_num_entries(request: QueueRequest, call: Call) -> Answer:
    """Number of entries of a queue."""
    existing_queue(call, request.queue)
    return {"num": queue_rows.count(call.db, request.queue)}


@service.action(QueueRequest, Access.READ)
def peek_task(request: QueueRequest, call: Call) -> Answer:
    """The first entry of a queue, which stays in it."""
    existing_queue(call, request.queue)
    first = queue_rows.of_queue(call.db, request.queue, 1)
    return {"task": first[0].task} if first else {}


@service.action(CreateQueueRequest, Access.WRITE)
def create(request: CreateQueueRequest, call: Call) -> Answer:
    """Create a queue."""
    fields = given(request, ("display_name", "tags", "system_tags", "metadata"))
    if "metadata" in fields:
        fields["metadata"] = metadata_by_key(fields["metadata"])
    return {"id": create_queue(call, request.name, **fields)}


@service.action(UpdateQueueRequest, Access.WRITE)
def update(request: UpdateQueueRequest, call: Call) -> Answer:
    """Rename a queue, or change its tags."""
    queue = existing_queue(call, request.queue)
    changes = given(request, ("name", "display_name", "tags", "system_tags", "metadata"))
    if "name" in changes and changes["name"] != queue["name"]:
        changes["name"] = valid_name(changes["name"])
        refuse_taken_name(call, changes["name"])
    if "metadata" in changes:
        changes["metadata"] = metadata_by_key(changes["metadata"])
    updated = queues.update(call.db, request.queue, {**changes, "last_update": call.time})
    return {"updated": updated, "fields": changes}


@service.action(DeleteQueueRequest, Access.WRITE)
def delete(request: DeleteQueueRequest, call: Call) -> Answer:
    """Delete a queue; refused while it has entries, without force."""
    existing_queue(call, request.queue)
    waiting = queue_rows.of_queue(call.db, request.queue)
    if waiting and not request.force:
        raise ApiFault(QUEUE_NOT_EMPTY, "use force=true to delete it with its entries", id=request.queue)
    queue_rows.remove_queue(call.db, request.queue)
    for entry in waiting:
        _back_to_draft(call, entry.task, "Queue was deleted")
    return {"deleted": queues.delete(call.db, request.queue)}


@service.action(SetMetadataRequest, Access.WRITE)
def add_or_update_metadata(request: SetMetadataRequest, call: Call) -> Answer:
    """Merge metadata of a queue."""
    queue = existing_queue(call, request.queue)
    kept = {} if request.replace_metadata else queue.get("metadata") or {}
    return _save_metadata(call, request.queue, {**kept, **metadata_by_key(request.metadata)})


@service.action(DeleteQueueMetadataRequest, Access.WRITE)
def delete_metadata(request: DeleteQueueMetadataRequest, call: Call) -> Answer:
    """Delete metadata of a queue."""
    present = existing_queue(call, request.queue).get("metadata") or {}
    gone = set(request.keys)
    return _save_metadata(call, request.queue, {key: item for key, item in present.items() if key not in gone})


def _save_metadata(call: Call, queue: str, metadata: Json) -> Answer:
    return {"updated": queues.update(call.db, queue, {"metadata": metadata, "last_update": call.time})}


@service.action(QueueRequest, Access.WRITE)
def clear_queue(request: QueueRequest, call: Call) -> Answer:
    """Remove all tasks from a queue; each gets the status that it had before."""
    existing_queue(call, request.queue)
    waiting = queue_rows.of_queue(call.db, request.queue)
    queue_rows.remove_queue(call.db, request.queue)
    for entry in waiting:
        _back_to_draft(call, entry.task, "Queue was cleared")
    queues.update(call.db, request.queue, {"last_update": call.time})
    return {"removed_tasks": [entry.task for entry in waiting]}


def _back_to_draft(call: Call, task: str, reason: str) -> None:
    """What a queued task becomes when it leaves the queue without being run."""
    found = tasks.get(call.db, task, ("status", "enqueue_status"))
    if found is not None and found["status"] == TaskStatus.QUEUED.value:
        before = TaskStatus(found.get("enqueue_status", "created"))
        change_status(call, found, before, force=True, reason=reason, also={"enqueue_status": None})


@service.action(NextTaskRequest, Access.WRITE)
def get_next_task(request: NextTaskRequest, call: Call) -> Answer:
    """Pop the oldest entry. A task that its agent reported stopped after it was enqueued again becomes queued again."""
    existing_queue(call, request.queue)
    first = queue_rows.of_queue(call.db, request.queue, 1)
    if not first or (request.task and first[0].task != request.task):
        return {}
    entry = first[0]
    queue_rows.remove(call.db, request.queue, entry.task)
    note_length(call, request.queue)
    queues.update(call.db, request.queue, {"last_update": call.time})
    answer: Answer = {"entry": {"task": entry.task, "added": entry.added}}
    task = tasks.get(call.db, entry.task, ("status", "company", "user"))
    if task is None:
        return answer
    if task["status"] == TaskStatus.STOPPED.value:
        change_status(call, task, TaskStatus.QUEUED, force=True, reason="still queued")
    if request.get_task_info:
        answer["task_info"] = {"company": task["company"], "user": task["user"]}
    return answer


@service.action(RemoveRequest, Access.WRITE)
def remove_task(request: RemoveRequest, call: Call) -> Answer:
    """Remove a task: ``removed: 1`` for exactly one of all callers. The task's status stays ``queued``."""
    if not queue_rows.remove(call.db, request.queue, request.task):
        raise ApiFault(TASK_NOT_IN_QUEUE, task=request.task, id=request.queue)
    queues.update(call.db, request.queue, {"last_update": call.time})
    if request.update_task_status:
        _back_to_draft(call, request.task, "Task was removed from the queue")
    return {"removed": 1}


@service.action(EntryRequest, Access.WRITE)
def add_task(request: EntryRequest, call: Call) -> Answer:
    """Add a task to a queue, without changing its status."""
    existing_queue(call, request.queue)
    task = existing_task(call, request.task, ("execution",))
    if queue_rows.holds(call.db, request.queue, request.task):
        raise ApiFault(TASK_ALREADY_QUEUED, task=request.task)
    queue_rows.append(call.db, request.queue, request.task, call.time)
    note_length(call, request.queue)
    execution = {**task.get("execution", {}), "queue": request.queue}
    tasks.update(call.db, request.task, {"execution": execution, "last_change": call.time})
    return {"added": 1}
