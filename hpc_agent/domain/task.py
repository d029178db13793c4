"""Task: what to run, as the server describes it. Everything that a user may have written is text."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hpc_agent.domain.ids import QueueId, TaskId
from hpc_agent.domain.status import TaskStatus


class Requirements(msgspec.Struct, frozen=True):
    """Package lists of a task; None means the key is absent, which is not the same as an empty list.

    See docs/internals/clearml-protocol.md#requirements.
    """

    pip: tuple[str, ...] | None = None
    conda: tuple[str, ...] | None = None
    org_pip: tuple[str, ...] | None = None


class TaskScript(msgspec.Struct, frozen=True):
    """``diff`` is a patch, or the text of the script itself when there is nothing to patch.

    See docs/internals/clearml-protocol.md#uncommitted-changes.
    """

    repository: str = ""
    branch: str = ""
    tag: str = ""
    commit: str = ""
    entry_point: str = ""
    working_dir: str = ""
    binary: str = ""
    diff: str = ""
    requirements: Requirements = Requirements()


class TaskContainer(msgspec.Struct, frozen=True):
    image: str = ""
    arguments: str = ""
    setup_shell_script: str = ""


class TaskOwner(msgspec.Struct, frozen=True):
    """Ids; empty for a task without one."""

    user: str
    project: str


class Task(msgspec.Struct, frozen=True):
    id: TaskId
    name: str = ""
    project: str = ""
    type: str = "training"
    status: TaskStatus = TaskStatus.UNKNOWN
    status_message: str = ""
    status_reason: str = ""
    queue: QueueId | None = None
    """The queue it was last enqueued on (``execution.queue``)."""
    user: str = ""
    script: TaskScript = TaskScript()
    container: TaskContainer = TaskContainer()
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)
    """User properties: hyper-parameter section ``properties``."""
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Hyper-parameter section ``Environment``."""
    runtime: Mapping[str, object] = msgspec.field(default_factory=dict)
    tags: tuple[str, ...] = ()
