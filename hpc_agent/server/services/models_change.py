"""``models.*``: publish, archive, move and delete models, one or many."""

from __future__ import annotations

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, Ids, RequestBody, Service
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.authorization import owns
from hpc_agent.server.roles import OwnerKind
from hpc_agent.server.services.batch import for_each
from hpc_agent.server.services.deletion import ARCHIVED, remove_model
from hpc_agent.server.services.models import ModelRequest, existing_model
from hpc_agent.server.services.projects import project_of_move
from hpc_agent.server.services.publication import publish_task
from hpc_agent.server.store.documents import Document, models, tasks
from hpc_agent.wire.error_kinds import MODEL_IS_READY

service = Service("models")


class SetReadyRequest(ModelRequest, frozen=True):
    publish_task: bool = True
    force_publish_task: bool = False


class PublishModelsRequest(RequestBody, frozen=True):
    ids: Ids
    publish_task: bool = True
    force_publish_task: bool = False


class DeleteModelRequest(ModelRequest, frozen=True):
    force: bool = False


class DeleteManyModelsRequest(RequestBody, frozen=True):
    ids: Ids
    force: bool = False


class ManyModelsRequest(RequestBody, frozen=True):
    ids: Ids


class MoveModelsRequest(ManyModelsRequest, frozen=True, kw_only=True):
    project: str | None = None
    project_name: str | None = None


@service.action(SetReadyRequest, Access.WRITE)
def set_ready(request: SetReadyRequest, call: Call) -> Answer:
    """Publish a model, and the task that made it."""
    return _publish(call, request.model, request.publish_task, request.force_publish_task)


@service.action(PublishModelsRequest, Access.WRITE)
def publish_many(request: PublishModelsRequest, call: Call) -> Answer:
    """Publish models, and the tasks that made them."""
    with_task, force = request.publish_task, request.force_publish_task
    return for_each(call, request.ids, lambda id: _publish(call, id, with_task, force))


def _publish(call: Call, id: str, with_task: bool, force: bool) -> Answer:
    model = existing_model(call, id)
    if model.get("ready") is True:
        raise ApiFault(MODEL_IS_READY, model=id)
    changes = {"ready": True, "last_update": call.time, "last_change": call.time}
    answer: Answer = {"updated": models.update(call.db, id, changes)}
    task = tasks.get(call.db, model.get("task", ""), ("status", "models")) if with_task else None
    if task is not None and task["status"] != TaskStatus.PUBLISHED.value and owns(call, OwnerKind.TASK, task["id"]):
        published = publish_task(call, task, force=force, with_models=False)
        answer["published_task"] = {"id": task["id"], "data": published}
    return answer


@service.action(DeleteModelRequest, Access.WRITE)
def delete(request: DeleteModelRequest, call: Call) -> Answer:
    """Delete a model; refused while it is an input of a task, without force."""
    return _delete(call, existing_model(call, request.model), request.force)


@service.action(DeleteManyModelsRequest, Access.WRITE)
def delete_many(request: DeleteManyModelsRequest, call: Call) -> Answer:
    """Delete models."""
    return for_each(call, request.ids, lambda id: _delete(call, existing_model(call, id), request.force))


def _delete(call: Call, model: Document, force: bool) -> Answer:
    return {"deleted": bool(remove_model(call, model, force=force)), "url": model.get("uri")}


@service.action(ManyModelsRequest, Access.WRITE)
def archive_many(request: ManyModelsRequest, call: Call) -> Answer:
    """Archive models."""
    return for_each(call, request.ids, lambda id: {"archived": _tag(call, id, True)})


@service.action(ManyModelsRequest, Access.WRITE)
def unarchive_many(request: ManyModelsRequest, call: Call) -> Answer:
    """Bring archived models back."""
    return for_each(call, request.ids, lambda id: {"unarchived": _tag(call, id, False)})


def _tag(call: Call, id: str, archived: bool) -> bool:
    kept = [tag for tag in existing_model(call, id).get("system_tags", []) if tag != ARCHIVED]
    tags = [*kept, ARCHIVED] if archived else kept
    changes = {"system_tags": tags, "last_update": call.time, "last_change": call.time}
    return bool(models.update(call.db, id, changes))


@service.action(MoveModelsRequest, Access.WRITE)
def move(request: MoveModelsRequest, call: Call) -> Answer:
    """Move models into a project, which is made where ``project_name`` is new."""
    project = project_of_move(call, request.project, request.project_name)
    changes = {"project": project, "last_update": call.time, "last_change": call.time}
    moved = [id for id in request.ids if models.update(call.db, id, changes)]
    return {"project_id": project, "updated": len(moved)}
