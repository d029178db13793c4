"""Creates the planned task on the server, after a look-up of everything that must exist there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from msgspec.structs import replace

from hpc_agent.api.client import Client
from hpc_agent.domain.draft import Draft
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.task import Task, TaskContainer, TaskScript
from hpc_agent.drafts.draft_plan import PIPELINES, DraftPlan
from hpc_agent.drafts.draft_request import DraftRequest
from hpc_agent.errors import ApiError, HpcAgentError, InputError, NotFoundError, ServerUnreachableError
from hpc_agent.wire.error_kinds import TASK_ALREADY_QUEUED
from hpc_agent.wire.task_requests import changes_to_wire, copy_to_wire, draft_to_wire

_RUN_NUMBER = re.compile(r" #(\d+)$")


class Created(msgspec.Struct, frozen=True):
    """Created task. ``queue``: empty for a draft; ``page``: link of its page."""

    id: TaskId
    name: str
    queue: str
    page: str


def create(client: Client, request: DraftRequest, plan: DraftPlan) -> Created:
    """Create the task, or a changed copy of ``--base-task-id``, and put it on its queue if there is one.

    Raises:
        InputError: the queue or the base task does not exist; nothing was created.
        DraftError: a later step failed; the draft was deleted again, or its page is given.
        HpcAgentError: the server refused, or is away.
    """
    queue = client.queues.resolve(request.queue) if request.queue else None
    base = _base_task(client, request.base_task_id) if request.base_task_id else None
    if base:
        created = _copy(client, plan, base)
    else:
        created = _new(client, plan.draft, numbered=not request.pipeline_dont_add_run_number)
    if queue is None:
        return created
    with undo_on_failure(client, created.id, created.page):
        _enqueue(client, created.id, queue)
    return replace(created, queue=request.queue)


def _enqueue(client: Client, task: TaskId, queue: QueueId) -> None:
    try:
        client.tasks.enqueue(task, queue)
    except ApiError as error:
        # No other client queues a task that was just created: the reply to the first try was lost.
        if not TASK_ALREADY_QUEUED.matches(error):
            raise


def _new(client: Client, draft: Draft, *, numbered: bool) -> Created:
    if f"/{PIPELINES}/" in draft.project:
        client.projects.find_or_create(draft.project.rpartition("/")[0], system_tags=("hidden",))
        project = client.projects.find_or_create(draft.project, system_tags=("pipeline", "hidden"))
        if numbered:
            draft = msgspec.structs.replace(draft, name=_numbered(client, draft.name, project))
    else:
        project = client.projects.find_or_create(draft.project)
    task = client.tasks.create(draft_to_wire(draft, project))
    return Created(task, draft.name, "", client.task_page(task, project))


def _numbered(client: Client, name: str, project: str) -> str:
    """``name #2`` for the second run of a pipeline, and so on."""
    name = _RUN_NUMBER.sub("", name)
    earlier = client.tasks.names(project, rf"^{re.escape(name)}( #\d+)?$")
    numbers = [int(match[1]) for other in earlier if (match := _RUN_NUMBER.search(other))]
    number = max([len(earlier), *numbers]) + 1
    return f"{name} #{number}" if number > 1 else name


def _base_task(client: Client, id_or_name: str) -> Task:
    try:
        return client.tasks.get(client.tasks.resolve(id_or_name))
    except NotFoundError as error:
        raise InputError(f"the task {id_or_name} to copy (--base-task-id) does not exist") from error


def _copy(client: Client, plan: DraftPlan, base: Task) -> Created:
    """A clone of ``base`` with what was asked for laid over it."""
    draft = plan.draft
    project = client.projects.find_or_create(draft.project) if draft.project else base.project
    tags = dict.fromkeys([*base.tags, *draft.tags])
    task = client.tasks.create_copy(copy_to_wire(draft, project, base.id, list(tags)))
    page = client.task_page(task, project)
    script = draft.script if plan.has_code else _changed_script(base.script, draft.script)
    container = _changed_container(base.container, draft.container)
    changes = changes_to_wire(
        script=script if script != base.script else None,
        container=container if container != base.container else None,
        type=draft.type if plan.type_given else "",
        output_uri=draft.output_uri,
        runtime=draft.runtime,
    )
    with undo_on_failure(client, task, page):
        client.tasks.edit(task, changes)
        client.tasks.set_arguments(task, draft.arguments)
        client.tasks.set_properties(task, draft.properties)
    return Created(task, draft.name, "", page)


def _changed_script(base: TaskScript, requested: TaskScript) -> TaskScript:
    """The base task's script with the parts that flags name; a commit or branch replaces both."""
    pinned = bool(requested.commit or requested.branch)
    return msgspec.structs.replace(
        base,
        commit=requested.commit if pinned else base.commit,
        branch=requested.branch or base.branch,
        tag="" if pinned else base.tag,
        working_dir=requested.working_dir or base.working_dir,
        binary=requested.binary or base.binary,
        requirements=base.requirements if requested.requirements.pip is None else requested.requirements,
    )


def _changed_container(base: TaskContainer, requested: TaskContainer) -> TaskContainer:
    return TaskContainer(
        requested.image or base.image,
        requested.arguments or base.arguments,
        requested.setup_shell_script or base.setup_shell_script,
    )


class DraftError(HpcAgentError):
    """Failure after the task was created; the message has what became of it."""


@contextmanager
def undo_on_failure(client: Client, task: TaskId, page: str) -> Iterator[None]:
    """Context manager that deletes the task if a step inside fails.

    Raises:
        DraftError: a step inside failed.
    """
    try:
        yield
    except HpcAgentError as error:
        raise DraftError(f"{error}; {_undo(client, task, page, error)}") from error


def _undo(client: Client, task: TaskId, page: str, error: HpcAgentError) -> str:
    """Delete the task unless the failed step may have happened anyway; returns what became of it."""
    if isinstance(error, ServerUnreachableError) and error.uncertain:
        return f"the task {task} was created, and the server may have carried out the rest: look at {page}"
    try:
        client.tasks.delete(task)
    except HpcAgentError:
        return f"the task {task} was created and is left as it is: {page}"
    return "the task was created and deleted again"
