"""A task's source and environment together: staged where there is a network, opened where there is none."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.domain.task import Script, Task
from hpc_agent.envs.request import EnvRequest, request_for
from hpc_agent.envs.store import EnvStore, UsableEnv
from hpc_agent.errors import SourceError
from hpc_agent.redact import without_credentials
from hpc_agent.sources.git import configured_credentials
from hpc_agent.sources.staged import StagedSource
from hpc_agent.sources.store import SourceStore
from hpc_agent.sources.workspace import Kind, Workspace, entry_of

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Staged:
    """What a job needs to find in the shared cache; travels as ``stage.json`` in the run directory."""

    source: StagedSource
    env: EnvKey | None
    """None for tasks that run without Python."""


class Stager:
    """One for each daemon or job."""

    def __init__(self, settings: AllSettings, clock: Clock) -> None:
        self._sources = SourceStore(settings.hpc.cache, settings.git, clock)
        self._envs = EnvStore(
            settings.hpc.cache, settings.hpc.scratch, settings.packages, clock, configured_credentials(settings.git)
        )
        self._packages = settings.packages

    def stage(self, task: Task, progress: Progress) -> Staged:
        """Bring everything the task needs into the shared cache. Uses the network where something is missing.

        Raises:
            SourceError, EnvironmentBuildError: it cannot be had; the sentence says why.
        """
        source = self._sources.stage(task.script, progress)
        request = self._request(task, source)
        if request is None:
            return Staged(source, None)
        if not request.needs_source:
            return Staged(source, self._envs.stage(request, progress).key)
        with tempfile.TemporaryDirectory(prefix="hpc-agent-stage-") as folder:
            root = self._sources.checkout(task.script, source, Path(folder), progress).root
            return Staged(source, self._envs.stage(request, progress, source_root=root).key)

    def find(self, task: Task) -> Staged:
        """What an earlier ``stage`` left in the shared cache. No network.

        Raises:
            SourceError, EnvironmentBuildError: something is missing; the sentence names it and the command that
                stages it.
        """
        source = self._sources.find(task.script)
        if source is None:
            repository = without_credentials(task.script.repository)
            raise SourceError(
                f"the repository {repository} is not in the shared cache at the commit that this task wants: "
                f"stage it where there is a network with `hpc-agent cache warm --id {task.id}`"
            )
        request = self._request(task, source)
        return Staged(source, self._envs.find(request, task=task.id) if request else None)

    def check_out(self, task: Task, staged: Staged, into: Path, progress: Progress) -> Workspace:
        """The task's code below ``into``. No network.

        Raises:
            SourceError: it cannot be had.
        """
        return self._sources.checkout(task.script, staged.source, into, progress)

    def open(self, task: Task, staged: Staged, progress: Progress) -> UsableEnv | None:
        """The task's environment on this node. No network.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, or not whole.
        """
        return self._envs.use(staged.env, progress, task=task.id) if staged.env else None

    def _request(self, task: Task, source: StagedSource) -> EnvRequest | None:
        script = task.script
        if entry_of(script).kind in (Kind.SHELL, Kind.SHELL_COMMAND) and not script.requirements.pip:
            return None
        files = self._sources.requirement_files(script, source)
        return request_for(script, files, self._packages, source=_identity(script, source))


def _identity(script: Script, source: StagedSource) -> str:
    """Stands for the repository's content, uncommitted changes included."""
    return f"{source.commit}-{hashlib.sha256(script.diff.encode()).hexdigest()[:16]}"
