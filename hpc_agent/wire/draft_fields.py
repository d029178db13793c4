"""``domain.draft.Draft`` → the fields of ``tasks.create`` (docs/internals/clearml-protocol.md#task-object)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpc_agent.domain.draft import Draft
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.task import Requirements, TaskContainer, TaskScript

DEFAULT_BINARY = "python"
"""What ClearML's own clients write where no interpreter is known."""


def draft_to_wire(draft: Draft, project_id: str) -> dict[str, Any]:
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


def copy_to_wire(draft: Draft, project_id: str, parent: TaskId, tags: Sequence[str]) -> dict[str, Any]:
    """``tasks.clone``: what a copy does not take from the task that it is made from."""
    return {
        "new_task_name": draft.name,
        "new_task_project": project_id,
        "new_task_parent": parent,
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
    """The whole section: a server replaces it as a whole."""
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
    """Section → name → value; user properties are plainer than parameters, as ClearML's clients write them."""
    arguments = {name: {**_item("Args", name, value), **_TEXT} for name, value in draft.arguments.items()}
    properties = {name: _item("properties", name, value) for name, value in draft.properties.items()}
    return {name: items for name, items in (("Args", arguments), ("properties", properties)) if items}


_TEXT = {"type": "str", "description": ""}


def _item(section: str, name: str, value: str) -> dict[str, str]:
    return {"section": section, "name": name, "value": value}
