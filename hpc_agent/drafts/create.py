"""From the plan to the task on the server: what must exist there is looked up first, then the task is created."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from hpc_agent.api.client import Client
from hpc_agent.domain.draft import Draft
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.task import Task, TaskContainer, TaskScript
from hpc_agent.drafts.draft_plan import PIPELINES, DraftPlan
from hpc_agent.drafts.draft_request import DraftRequest
from hpc_agent.drafts.undo import or_undone
from hpc_agent.errors import ApiError, InputError, NotFoundError
from hpc_agent.wire.draft_fields import changes_to_wire, copy_to_wire, draft_to_wire

_ALREADY_QUEUED = 706
_RUN_NUMBER = re.compile(r" #(\d+)$")


@dataclass(frozen=True)
class Created:
    """``queue`` is empty for a task that was left a draft; ``page`` is the link of its page."""

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
    with or_undone(client, created.id, created.page):
        _enqueue(client, created.id, queue)
    return replace(created, queue=request.queue)


def _enqueue(client: Client, task: TaskId, queue: QueueId) -> None:
    try:
        client.tasks.enqueue(task, queue)
    except ApiError as error:
        # Nobody else queues a task that was just made: the answer to a first try was lost.
        if error.subcode != _ALREADY_QUEUED:
            raise


def _new(client: Client, draft: Draft, *, numbered: bool) -> Created:
    if f"/{PIPELINES}/" in draft.project:
        client.projects.find_or_create(draft.project.rpartition("/")[0], system_tags=("hidden",))
        project = client.projects.find_or_create(draft.project, system_tags=("pipeline", "hidden"))
        if numbered:
            draft = replace(draft, name=_numbered(client, draft.name, project))
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
        raise InputError(f"there is no task {id_or_name} to make a copy of (--base-task-id)") from error


def _copy(client: Client, plan: DraftPlan, base: Task) -> Created:
    """A clone of ``base`` with what was asked for laid over it."""
    draft = plan.draft
    project = client.projects.find_or_create(draft.project) if draft.project else base.project
    tags = dict.fromkeys([*base.tags, *draft.tags])
    task = client.tasks.clone(base.id, **copy_to_wire(draft, project, base.id, list(tags)))
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
    with or_undone(client, task, page):
        client.tasks.edit(task, changes)
        client.tasks.set_arguments(task, draft.arguments)
        client.tasks.set_properties(task, draft.properties)
    return Created(task, draft.name, "", page)


def _changed_script(base: TaskScript, asked: TaskScript) -> TaskScript:
    """The base task's script with the parts that flags name; a commit or branch replaces both."""
    pinned = bool(asked.commit or asked.branch)
    return replace(
        base,
        commit=asked.commit if pinned else base.commit,
        branch=asked.branch or base.branch,
        tag="" if pinned else base.tag,
        working_dir=asked.working_dir or base.working_dir,
        binary=asked.binary or base.binary,
        requirements=base.requirements if asked.requirements.pip is None else asked.requirements,
    )


def _changed_container(base: TaskContainer, asked: TaskContainer) -> TaskContainer:
    return TaskContainer(
        asked.image or base.image,
        asked.arguments or base.arguments,
        asked.setup_shell_script or base.setup_shell_script,
    )
