"""What a run tells the task about itself, so that a clone reproduces it. The run does not wait for it, nor need it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_agent.api.client import Client
from hpc_agent.domain.task import Task, TaskContainer
from hpc_agent.errors import HpcAgentError
from hpc_agent.logs import EventLog

log = EventLog("record")


@dataclass(frozen=True)
class MemoryUse:
    """What a task ran with. Empty or None: nothing to tell."""

    packages: Sequence[str] = ()
    """As ``pip freeze`` prints them."""
    commit: str = ""
    image: TaskContainer | None = None
    """The default that it ran in, for it named none itself."""


class Recorder:
    """``start`` when the process runs, ``finish`` when it has ended."""

    def __init__(self, client: Client, task: Task, used: MemoryUse) -> None:
        self._client = client
        self._task = task
        self._used = used
        self._thread = threading.Thread(target=self._record, name="record", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Wait for a little: a server that does not answer must not hold the node."""
        self._thread.join(timeout=10)

    def _record(self) -> None:
        task, used = self._task, self._used
        try:
            if used.packages and list(used.packages) != list(task.script.requirements.pip or ()):
                self._client.tasks.set_requirements(task.id, _requirements(task, used.packages))
            if used.commit and not task.script.commit:
                self._client.tasks.set_commit(task.id, used.commit)
            if used.image is not None:
                self._client.tasks.set_container(task.id, used.image)
        except HpcAgentError as error:
            log.warning("task.not_updated", task=task.id, error=error)


def _requirements(task: Task, packages: Sequence[str]) -> dict[str, str]:
    """The frozen list as ``pip``, what was asked for as ``org_pip``, kept from the first run on.

    See docs/internals/clearml-protocol.md#requirements.
    """
    asked = task.script.requirements
    frozen = {"pip": "\n".join(packages)}
    original = asked.org_pip if asked.org_pip is not None else asked.pip
    return frozen if original is None else {"org_pip": "\n".join(original), **frozen}
