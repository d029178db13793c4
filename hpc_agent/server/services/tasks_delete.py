"""``tasks.*``: delete and reset tasks, one or many."""

from __future__ import annotations

from typing import Any

from hpc_agent.domain.status import TaskStatus
from hpc_agent.server.action import Access, Answer, Call, Ids, RequestBody, Service
from hpc_agent.server.api_fault import ApiFault
from hpc_agent.server.services.batch import for_each
from hpc_agent.server.services.deletion import ARCHIVED, Removed, forget_run, output_urls, remove_task
from hpc_agent.server.services.pipeline_steps import RUN_FIELDS, with_steps
from hpc_agent.server.services.task_shapes import EXECUTION, SCRIPT, whole_execution
from hpc_agent.server.services.transitions import change_status, existing_task
from hpc_agent.server.store import key_store, queue_rows
from hpc_agent.server.store.documents import Document
from hpc_agent.wire.error_kinds import INVALID_TASK_STATUS, TASK_CANNOT_BE_DELETED

service = Service("tasks")


class _DeleteOptions(RequestBody, frozen=True, kw_only=True):
    force: bool = False
    return_file_urls: bool = False
    delete_output_models: bool = True


class _RemoveOptions(_DeleteOptions, frozen=True, kw_only=True):
    include_pipeline_steps: bool = False


class DeleteTaskRequest(_RemoveOptions, frozen=True, kw_only=True):
    task: str


class DeleteManyRequest(_RemoveOptions, frozen=True, kw_only=True):
    ids: Ids


class _ResetOptions(_DeleteOptions, frozen=True, kw_only=True):
    clear_all: bool = False


class ResetRequest(_ResetOptions, frozen=True, kw_only=True):
    task: str


class ResetManyRequest(_ResetOptions, frozen=True, kw_only=True):
    ids: Ids


@service.action(DeleteTaskRequest, Access.WRITE)
def delete(request: DeleteTaskRequest, call: Call) -> Answer:
    """Delete a draft or an archived task, with force any task."""
    return {"deleted": True, **_delete(call, request.task, request)}


@service.action(DeleteManyRequest, Access.WRITE)
def delete_many(request: DeleteManyRequest, call: Call) -> Answer:
    """Delete tasks."""
    return for_each(call, request.ids, lambda id: {"deleted": True, **_delete(call, id, request)})


def _delete(call: Call, id: str, options: _RemoveOptions) -> Answer:
    removed = Removed()
    # The steps first: each has the run as its parent.
    for one in reversed(with_steps(call, [id], include=options.include_pipeline_steps)):
        task = existing_task(call, one, RUN_FIELDS)
        if not options.force and task["status"] != TaskStatus.CREATED.value and ARCHIVED not in task["system_tags"]:
            raise ApiFault(TASK_CANNOT_BE_DELETED, "due to its status, use force=true", task=one, status=task["status"])
        removed.add(remove_task(call, task, force=options.force, drop_models=options.delete_output_models))
    return removed.answer(urls=options.return_file_urls)


@service.action(ResetRequest, Access.WRITE)
def reset(request: ResetRequest, call: Call) -> Answer:
    """Make a task a draft again. Outputs of its run go; script, parameters, container stay (unless ``clear_all``)."""
    return _reset(call, request.task, request)


@service.action(ResetManyRequest, Access.WRITE)
def reset_many(request: ResetManyRequest, call: Call) -> Answer:
    """Make tasks drafts again."""
    return for_each(call, request.ids, lambda id: _reset(call, id, request))


def _reset(call: Call, id: str, options: _ResetOptions) -> Answer:
    task = existing_task(call, id, ("status", "execution", "models", "output"))
    if not options.force and task["status"] == TaskStatus.PUBLISHED.value:
        raise ApiFault(INVALID_TASK_STATUS, "a published task cannot be reset", task=id)
    dequeued = queue_rows.remove_everywhere(call.db, id)
    key_store.remove_of_task(call.db, id)
    removed = forget_run(call, task, force=options.force, drop_models=options.delete_output_models)
    removed.artifact_urls |= output_urls(task)
    answer = change_status(
        call,
        task,
        TaskStatus.CREATED,
        force=options.force,
        reason="reset",
        message="reset",
        also=_forgotten(task, options.clear_all),
    )
    return {**answer, **removed.answer(urls=options.return_file_urls), "dequeued": {"removed": dequeued}}


def _forgotten(task: Document, clear_all: bool) -> dict[str, Any]:
    """The fields that describe a run, as a task has them that never ran."""
    execution = {name: value for name, value in task.get("execution", {}).items() if name != "queue"}
    execution["artifacts"] = [a for a in execution.get("artifacts") or [] if a.get("mode") == "input"]
    fields: dict[str, Any] = dict.fromkeys(
        (
            "started",
            "completed",
            "published",
            "active_duration",
            "enqueue_status",
            "last_worker",
            "last_worker_report",
        )
    )
    fields |= {
        "last_iteration": 0,
        "last_metrics": {},
        "runtime": {},
        "models": {"input": task.get("models", {}).get("input") or [], "output": []},
        "output": {k: v for k, v in task.get("output", {}).items() if k == "destination"},
        "execution": dict(EXECUTION) if clear_all else whole_execution(execution),
    }
    return {**fields, "script": dict(SCRIPT)} if clear_all else fields
