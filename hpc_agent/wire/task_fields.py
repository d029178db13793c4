"""ClearML's task object → ``domain.task.Task``. See docs/internals/clearml-protocol.md#task-object.

``wire`` is the only client-side package that knows ClearML's field names: what is read of a running task is in
``task_state``, what is written in ``task_requests``. tests/unit/test_wire_names.py checks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hpc_agent.domain.ids import QueueId, TaskId, is_id
from hpc_agent.domain.status import TaskStatus
from hpc_agent.domain.task import Requirements, Task, TaskContainer, TaskScript
from hpc_agent.errors import InputError
from hpc_agent.struct_types import decodable

_List = str | list[str] | None


class _WireScript(msgspec.Struct):
    repository: str | None = None
    branch: str | None = None
    tag: str | None = None
    version_num: str | None = None
    entry_point: str | None = None
    working_dir: str | None = None
    binary: str | None = None
    diff: str | None = None
    requirements: dict[str, _List] | str | None = None


class _WireContainer(msgspec.Struct):
    image: str | None = None
    arguments: str | None = None
    setup_shell_script: str | None = None


class _WireParameter(msgspec.Struct):
    value: str | None = None


class _WireExecution(msgspec.Struct):
    queue: str | None = None
    docker_cmd: str | None = None


class _WireTask(msgspec.Struct):
    id: str
    name: str | None = None
    project: str | None = None
    type: str | None = None
    status: str | None = None
    status_message: str | None = None
    status_reason: str | None = None
    user: str | None = None
    execution: _WireExecution | None = None
    script: _WireScript | None = None
    container: _WireContainer | None = None
    hyperparams: dict[str, dict[str, _WireParameter]] | None = None
    runtime: dict[str, Any] | None = None
    tags: list[str] | None = None


class CorruptTaskError(InputError):
    """A task object from the server that does not have ClearML's types."""


TASK_FIELDS = _WireTask.__struct_fields__
"""What ``task_from_wire`` reads of a task."""


def task_from_wire(data: object) -> Task:
    """The task that a ``tasks.get_by_id`` or ``tasks.get_all`` answer holds. Missing and null fields are empty.

    Raises:
        CorruptTaskError: a field has a wrong type, or the id is invalid.
    """
    try:
        raw = msgspec.convert(data, decodable(_WireTask), strict=False)
    except msgspec.ValidationError as error:
        name = data.get("id") if isinstance(data, Mapping) else None
        reason = str(error).replace("`", "").replace(" - at $.", ", in its field ")
        raise CorruptTaskError(
            f"task {name} on the server cannot be read: {reason}; clone it or create it again"
        ) from error
    if not is_id(raw.id):
        raise CorruptTaskError(
            f"the server gave a task the invalid id {raw.id[:100]!r} (not letters, digits, - and _, at most 64): "
            "the task is not run; is api.api_server the right server?"
        )
    parameters = raw.hyperparams or {}
    return Task(
        id=TaskId(raw.id),
        name=raw.name or "",
        project=raw.project or "",
        type=raw.type or "training",
        status=status_from_wire(raw.status),
        status_message=raw.status_message or "",
        status_reason=raw.status_reason or "",
        queue=_queue(raw.execution),
        user=raw.user or "",
        script=_script(raw.script or _WireScript()),
        container=_container(raw.container or _WireContainer(), raw.execution),
        properties=_values(parameters.get("properties", {})),
        environment=_values(parameters.get("Environment", {})),
        runtime=raw.runtime or {},
        tags=tuple(raw.tags or ()),
    )


def _queue(execution: _WireExecution | None) -> QueueId | None:
    if execution is None or execution.queue is None or not is_id(execution.queue):
        return None
    return QueueId(execution.queue)


def section(task: object, name: str) -> dict[str, Any]:
    """A section (``script``, ``runtime``, …) of an object from the server; empty where it is missing or not one."""
    found = task.get(name) if isinstance(task, Mapping) else None
    return found if isinstance(found, dict) else {}


def status_from_wire(text: str | None) -> TaskStatus:
    """The status of that name; ``UNKNOWN`` for one that this version does not know."""
    try:
        return TaskStatus(text)
    except ValueError:
        return TaskStatus.UNKNOWN


def _values(section: Mapping[str, _WireParameter]) -> dict[str, str]:
    return {name: parameter.value or "" for name, parameter in section.items()}


def _script(raw: _WireScript) -> TaskScript:
    # Very old tasks carry the pip list as plain text.
    requirements = {"pip": raw.requirements} if isinstance(raw.requirements, str) else raw.requirements or {}
    return TaskScript(
        repository=(raw.repository or "").strip(),
        branch=raw.branch or "",
        tag=raw.tag or "",
        commit=raw.version_num or "",
        entry_point=raw.entry_point or "",
        working_dir=raw.working_dir or "",
        binary=raw.binary or "",
        diff=raw.diff or "",
        requirements=Requirements(
            pip=_lines(requirements.get("pip")),
            conda=_lines(requirements.get("conda")),
            org_pip=_lines(requirements.get("org_pip")),
        ),
    )


def _lines(value: _List) -> tuple[str, ...] | None:
    """Lines of a multi-line text or a list of lines: clients send both."""
    if value is None:
        return None
    lines: Iterable[str] = value.splitlines() if isinstance(value, str) else value
    return tuple(line.strip() for line in lines if line.strip())


def _container(raw: _WireContainer, execution: _WireExecution | None) -> TaskContainer:
    if raw.image is None and execution is not None and execution.docker_cmd:
        image, _, arguments = execution.docker_cmd.strip().partition(" ")
        return TaskContainer(image, arguments.strip(), raw.setup_shell_script or "")
    return TaskContainer(raw.image or "", raw.arguments or "", raw.setup_shell_script or "")
