"""Bodies of the ``tasks.*`` requests (docs/internals/clearml-protocol.md#task-object)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.domain.draft import Draft
from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.task import Requirements, TaskContainer, TaskScript
from hpc_agent.wire.task_fields import TASK_FIELDS, section
from hpc_agent.wire.task_state import HOST, JOB_ID, STATE_FIELDS

DEFAULT_BINARY = "python"
"""What ClearML's own clients write where no interpreter is known."""
PAGE_SIZE = 500
"""Tasks in one answer: the reference server's maximum."""


def states_query(tasks: Sequence[TaskId]) -> dict[str, Any]:
    """``tasks.get_all``: the states of at most ``PAGE_SIZE`` tasks."""
    return {"id": list(tasks), "only_fields": list(STATE_FIELDS), "search_hidden": True, **_page(PAGE_SIZE)}


def tasks_query(tasks: Sequence[TaskId]) -> dict[str, Any]:
    """``tasks.get_all``: at most ``PAGE_SIZE`` tasks, with all that ``task_from_wire`` reads."""
    return {"id": list(tasks), "only_fields": list(TASK_FIELDS), "search_hidden": True, **_page(PAGE_SIZE)}


def owners_query(tasks: Sequence[TaskId]) -> dict[str, Any]:
    """``tasks.get_all``: the users and projects of at most ``PAGE_SIZE`` tasks."""
    return {"id": list(tasks), "only_fields": ["id", "user", "project"], "search_hidden": True, **_page(PAGE_SIZE)}


def named_query(name: str) -> dict[str, Any]:
    """``tasks.get_all``: visible tasks whose name contains this text."""
    return {"name": re.escape(name), "only_fields": ["id", "name"], **_page(50)}


def names_query(project: str, pattern: str) -> dict[str, Any]:
    """``tasks.get_all``: names of a project's tasks that match a regular expression."""
    wanted = {"project": [project], "name": pattern, "only_fields": ["id", "name"]}
    return {**wanted, "search_hidden": True, **_page(PAGE_SIZE)}


def status_change(task: TaskId, reason: str, message: str, *, force: bool) -> dict[str, Any]:
    """``tasks.started``, ``tasks.completed``, ``tasks.failed`` and ``tasks.stopped``."""
    return {"task": task, "status_reason": reason, "status_message": message, "force": force}


def stop_request(task: TaskId, reason: str) -> dict[str, Any]:
    """``tasks.stop``."""
    return {"task": task, "status_reason": reason}


def status_message(task: TaskId, message: str) -> dict[str, Any]:
    """``tasks.update``, which works on a queued task too (``tasks.edit`` would change nothing)."""
    return {"task": task, "status_message": message}


def enqueue_request(task: TaskId, queue: QueueId, reason: str, *, force: bool = False) -> dict[str, Any]:
    """``tasks.enqueue``; ``force`` enqueues a task whose status does not allow it otherwise."""
    return {"task": task, "queue": queue, "status_reason": reason, **({"force": True} if force else {})}


def edit_request(task: TaskId, fields: Mapping[str, Any]) -> dict[str, Any]:
    """``tasks.edit``, also of a task that is not a draft any more."""
    return {"task": task, "force": True, **fields}


def runtime_over(task: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``tasks.edit`` that lay ``values`` over the runtime section of the server's task object."""
    return {"runtime": {**section(task, "runtime"), **values}}


def job_runtime(job: str, host: str = "") -> dict[str, str]:
    """Runtime properties for the web page: the task's job and its machine, so far as they are known."""
    return {name: value for name, value in ((HOST, host), (JOB_ID, job)) if value}


def commit_over(task: Mapping[str, Any], commit: str) -> dict[str, Any]:
    """Fields of ``tasks.edit`` that set the commit, with the rest of the script section."""
    return {"script": {**section(task, "script"), "version_num": commit}}


def hyperparams_request(task: TaskId, group: str, values: Mapping[str, str]) -> dict[str, Any]:
    """``tasks.edit_hyper_params``: add or replace these values of a group, keep the others."""
    params = [{**_item(group, name, value), "type": "str"} for name, value in values.items()]
    return {"task": task, "hyperparams": params, "replace_hyperparams": "none"}


def clone_request(task: TaskId, name: str, parent: TaskId | None) -> dict[str, Any]:
    """``tasks.clone``; the server names a copy that gets no name."""
    fields = {"task": task, "new_task_name": name, "new_task_parent": parent}
    return {field: value for field, value in fields.items() if value}


def _page(size: int) -> dict[str, int]:
    return {"page": 0, "page_size": size}


def draft_to_wire(draft: Draft, project_id: str) -> dict[str, Any]:
    """``tasks.create``."""
    fields: dict[str, Any] = {
        "name": draft.name,
        "project": project_id,
        "type": draft.type,
        "comment": draft.comment,
        "tags": list(draft.tags),
        "system_tags": list(draft.system_tags),
        "script": script_to_wire(draft.script),
        "container": container_to_wire(draft.container),
        "hyperparams": _hyperparams(draft),
        "runtime": dict(draft.runtime),
    }
    if draft.output_uri:
        fields["output_dest"] = draft.output_uri
    return fields


def copy_to_wire(draft: Draft, project_id: str, original: TaskId, tags: Sequence[str]) -> dict[str, Any]:
    """``tasks.clone``: the fields that a copy of ``original``, its child, does not take from it."""
    return {
        "task": original,
        "new_task_name": draft.name,
        "new_task_project": project_id,
        "new_task_parent": original,
        "new_task_comment": draft.comment,
        "new_task_tags": list(tags),
        "new_task_system_tags": list(draft.system_tags),
    }


def changes_to_wire(
    *,
    script: TaskScript | None,
    container: TaskContainer | None,
    type: str,
    output_uri: str,
    runtime: Mapping[str, object],
) -> dict[str, Any]:
    """``tasks.edit``; None and empty text leave a field as it is."""
    fields: dict[str, Any] = {
        "script": script and script_to_wire(script),
        "container": container and container_to_wire(container),
        "type": type,
        "output_dest": output_uri,
        "runtime": dict(runtime),
    }
    return {name: value for name, value in fields.items() if value}


def script_to_wire(script: TaskScript) -> dict[str, Any]:
    """The whole script section: a server keeps the parts that it is not given."""
    return {
        "repository": script.repository,
        "branch": script.branch,
        "tag": script.tag,
        "version_num": script.commit,
        "entry_point": script.entry_point,
        "working_dir": script.working_dir,
        "binary": script.binary or DEFAULT_BINARY,
        "diff": script.diff,
        "requirements": requirements_to_wire(script.requirements),
    }


def requirements_to_wire(requirements: Requirements) -> dict[str, str]:
    """Lists that are None are left out: an absent list means "see the repository", an empty one "nothing"."""
    lists = {"pip": requirements.pip, "conda": requirements.conda, "org_pip": requirements.org_pip}
    return {name: "\n".join(lines) for name, lines in lists.items() if lines is not None}


def container_to_wire(container: TaskContainer) -> dict[str, str]:
    return {
        "image": container.image,
        "arguments": container.arguments,
        "setup_shell_script": container.setup_shell_script,
    }


def _hyperparams(draft: Draft) -> dict[str, Any]:
    """Hyper-parameter sections; user properties have fewer fields than parameters, as ClearML's clients write them."""
    arguments = {name: {**_item("Args", name, value), **_TEXT} for name, value in draft.arguments.items()}
    properties = {name: _item("properties", name, value) for name, value in draft.properties.items()}
    return {name: items for name, items in (("Args", arguments), ("properties", properties)) if items}


_TEXT = {"type": "str", "description": ""}


def _item(section: str, name: str, value: str) -> dict[str, str]:
    return {"section": section, "name": name, "value": value}
