"""Source and environment on this node, and the command that runs the task."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_agent.clock import Clock
from hpc_agent.config.load import Configuration
from hpc_agent.domain.ids import WorkerId
from hpc_agent.domain.task import Task
from hpc_agent.errors import SourceError
from hpc_agent.executor.environment import Launch, process_environment
from hpc_agent.files import read_record
from hpc_agent.process import run
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.sources.workspace import Workspace
from hpc_agent.staging import Staged, Stager

_CONVERT_TIMEOUT_S = 600


@dataclass(frozen=True)
class Wishes:
    """Flags of ``execute`` that shape the user's process."""

    standalone: bool = False
    optimize: int = 0
    log_level: str = "INFO"
    gpus: str | None = None


@dataclass(frozen=True)
class Prepared:
    """Ready to start."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    cwd: Path


class Preparer:
    """``say`` takes lines for the task's console."""

    def __init__(
        self, configuration: Configuration, worker: WorkerId, wishes: Wishes, clock: Clock, say: Callable[[str], None]
    ) -> None:
        self._configuration = configuration
        self._settings = configuration.settings
        self._stager = Stager(configuration.settings, clock)
        self._worker = worker
        self._wishes = wishes
        self._clock = clock
        self._say = say

    def prepare(self, task: Task, directory: RunDirectory, workdir: Path) -> Prepared:
        """Everything that stands between the claim and the user's first line.

        Raises:
            SourceError, EnvironmentBuildError: it cannot be had.
        """
        begun = self._clock.monotonic()
        staged = self._staged(task, directory)
        workspace = self._stager.check_out(task, staged, workdir, self._say)
        for note in workspace.notes:
            self._say(note)
        env = self._stager.open(task, staged, self._say)
        if env is not None:
            self._say(f"Environment {env.key} ready ({env.how}) after {self._clock.monotonic() - begun:.1f} s")
        python = env.python if env else Path("python3")
        environ = process_environment(
            os.environ, self._launch(task, workspace, env.python if env else None), self._settings.agent
        )
        self._convert(workspace, python, environ)
        options = ["-" + "O" * self._wishes.optimize] if self._wishes.optimize else []
        return Prepared(workspace.command(python, environ, options=options), environ, workspace.cwd)

    def _staged(self, task: Task, directory: RunDirectory) -> Staged:
        """Offline: what the daemon staged for this attempt, else what the cache has. Online: a stage of our own."""
        if not self._wishes.standalone:
            return self._stager.stage(task, self._say)
        return read_record(directory.stage, Staged) or self._stager.find(task)

    def _launch(self, task: Task, workspace: Workspace, python: Path | None) -> Launch:
        files = self._configuration.files
        return Launch(
            task=task,
            worker=self._worker,
            log_level=self._wishes.log_level,
            config_file=files[-1] if files else None,
            script_dir=workspace.script_dir,
            root=workspace.root,
            bin_dir=python.parent if python else None,
            gpus=self._wishes.gpus,
        )

    def _convert(self, workspace: Workspace, python: Path, environ: Mapping[str, str]) -> None:
        command = workspace.preparation(python)
        if command is None:
            return
        done = run(command, timeout=_CONVERT_TIMEOUT_S, env=environ, cwd=workspace.cwd)
        if not done.ok:
            raise SourceError(
                f"the notebook could not be converted to a script (nbconvert and ipython must be among the task's "
                f"packages): {done.last_words}"
            )
