"""Preparation of a task on its node: source, environment, container, and the command that runs it.

Every job waits for what is imported here: containers and build scripts are imported where a task has one.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from hpc_agent.cancellation import CancellableClock
from hpc_agent.clock import Clock
from hpc_agent.config.load import Configuration
from hpc_agent.domain.ids import TaskId, WorkerId
from hpc_agent.domain.task import Task
from hpc_agent.envs.env_store import UsableEnv
from hpc_agent.errors import ContainerError, EnvironmentBuildError
from hpc_agent.executor.process_environment import ProcessContext, process_environment
from hpc_agent.executor.report import RunInputs
from hpc_agent.file_records import read_record
from hpc_agent.runs.directory import RunDirectory
from hpc_agent.sources.layout import Origin
from hpc_agent.sources.workspace import Workspace
from hpc_agent.staging import StagedTask, TaskStager, retry_staging

if TYPE_CHECKING:
    from hpc_agent.executor import build_script, container_run
    from hpc_agent.executor.prefetch import EnvPrefetch
    from hpc_agent.image_resolver import ResolvedContainer

IMAGE_VARIABLE = "CLEARML_DOCKER_IMAGE"
"""Set in containers to the image that they are made from."""

_NOTHING = RunInputs()


class ExecuteOptions(msgspec.Struct, frozen=True):
    """Flags of ``execute`` that shape the user's process."""

    standalone: bool = False
    optimize: int = 0
    log_level: str = "INFO"
    gpus: str | None = None
    docker: bool = False
    """``--docker``: run in a container or fail."""
    template_launch: bool = False
    """``--container-launch``: the job's script has the function that starts the container."""


class PreparedTask(msgspec.Struct, frozen=True):
    """Task that is ready to start. ``clean_up`` must be called when it has ended, in whatever way."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    cwd: Path
    clean_up: Callable[[], None] = lambda: None
    inputs: RunInputs = _NOTHING
    forwards_signals: bool = False
    """As in ``process.supervised.Supervised``."""
    in_step: bool = False
    """Whether the scheduler starts the task's process (``step_process``)."""
    in_container: bool = False

    def marked(self, variable: str, value: str) -> list[str]:
        """``argv`` with a variable for the process that a step starts, and for that one alone."""
        return [*self.argv, *([f"{variable}={value}"] if self.in_step else [])]


class Preparer:
    """Preparer of one task. Its waits can be cancelled.

    ``write_line`` takes lines for the task's console; ``raw`` returns the server's own object of a task.
    """

    def __init__(
        self,
        configuration: Configuration,
        worker: WorkerId,
        options: ExecuteOptions,
        clock: Clock,
        write_line: Callable[[str], None],
        raw: Callable[[TaskId], Mapping[str, Any]],
        prefetch: EnvPrefetch | None = None,
    ) -> None:
        self._configuration = configuration
        self._settings = configuration.settings
        self._clock = CancellableClock(clock)
        self._stager = TaskStager(configuration.settings, self._clock, share=False)
        self._worker = worker
        self._flags = options
        self._write_line = write_line
        self._raw = raw
        self._prefetch = prefetch

    def prepare(self, task: Task, directory: RunDirectory, workdir: Path) -> PreparedTask:
        """Prepare everything that the user's process needs.

        Raises:
            SourceError, EnvironmentBuildError, ContainerError: it is not available, or cannot be built.
        """
        started = self._clock.monotonic()
        self._check_docker(task)
        staged = self._staged(task, directory)
        resolved = self._resolve_container(task)
        if resolved is not None and self._flags.template_launch:
            from hpc_agent.executor.template_launch import launched_by_script

            resolved = launched_by_script(resolved, directory.path)
        container = None
        if resolved is not None:
            from hpc_agent.executor import container_run

            container = container_run.ContainerRun(resolved, workdir, directory.attempt.job_name, self._configuration)
        workspace = self._stager.check_out(task, staged, container.code if container else workdir, self._write_line)
        for note in workspace.notes:
            self._write_line(note)
        if self._settings.agent.force_task_init and staged.source.origin is not Origin.FOLDER:
            from hpc_agent.executor import build_script

            self._write_line(build_script.add_init(workspace))
        env = self._prefetch.result(self._write_line) if self._prefetch else None
        if env is None or env.key != staged.env:
            env = self._stager.open(task.id, staged, self._write_line)
        if env is not None:
            after = f"{env.access} after {self._clock.monotonic() - started:.1f} s"
            how = "is ready on this node already" if env.access == "ready" else after
            self._write_line(f"Environment {env.key} {how}")
            _check_image(env, resolved)
        if resolved and container:
            return self._prepared_container(task, resolved, container, workspace, env, staged.source.commit)
        python = env.python if env else Path("python3")
        if (chosen := self._run_build_script(task, workspace, workdir)) is not None:
            workspace, python, env = chosen.workspace(workspace), chosen.binary, None
        environ = process_environment(
            os.environ, self._process_context(task, workspace, env.python if env else None), self._settings.agent
        )
        if env is not None and env.conda:
            from hpc_agent.executor import conda_activation

            environ = conda_activation.activated(environ, env.root)
        inputs = RunInputs(env.packages if env else (), staged.source.commit)
        return PreparedTask(
            workspace.command(python, environ, options=self._python_options), environ, workspace.cwd, inputs=inputs
        )

    def _run_build_script(self, task: Task, workspace: Workspace, workdir: Path) -> build_script.ScriptResult | None:
        setting = self._settings.agent.custom_build_script
        if not setting:
            return None
        from hpc_agent.executor import build_script

        return build_script.BuildScript(setting, self._raw(task.id), workspace, workdir / "build").run(
            os.environ, self._write_line
        )

    @property
    def _python_options(self) -> list[str]:
        return ["-" + "O" * self._flags.optimize] if self._flags.optimize else []

    def _check_docker(self, task: Task) -> None:
        """
        Raises:
            ContainerError: a container is asked for, and neither flag, task nor configuration names an image.
        """
        if self._flags.docker and not self._stager.uses_container(task):
            raise ContainerError(
                "--docker names no image, nor does the task or agent.default_docker.image: give one, as in "
                "--docker python:3.11"
            )

    def _resolve_container(self, task: Task) -> ResolvedContainer | None:
        resolved = self._stager.find_container(task, self._write_line)
        # In an image that `hpc-agent build` made, the task is where it wants to be.
        if resolved is None and task.container.image and task.container.image != os.environ.get(IMAGE_VARIABLE):
            self._write_line(
                f"The task names the image {task.container.image}; this agent runs tasks without containers "
                "(hpc.container.runtime is none), so it runs on the node itself"
            )
        return resolved

    def _prepared_container(
        self,
        task: Task,
        resolved: ResolvedContainer,
        container: container_run.ContainerRun,
        workspace: Workspace,
        env: UsableEnv | None,
        commit: str,
    ) -> PreparedTask:
        from hpc_agent.containers.docker_options import split
        from hpc_agent.executor import container_run

        flags = self._flags
        run = container_run.ContainerProcess(
            task, self._worker, workspace, env, flags.log_level, self._python_options, flags.gpus
        )
        choice = resolved.choice
        default = None
        if not choice.by_task and not task.container.image:
            arguments = shlex.join(split(self._settings.docker.default_arguments))
            default = replace(task.container, image=choice.image, arguments=arguments)
        argv = container.command(run, self._write_line)
        return PreparedTask(
            argv,
            dict(os.environ),
            workspace.cwd,
            container.clean_up,
            RunInputs(env.packages if env else (), commit, default),
            forwards_signals=resolved.prepared.runtime.isolated,
            in_step=resolved.prepared.runtime.in_step,
            in_container=True,
        )

    def _staged(self, task: Task, directory: RunDirectory) -> StagedTask:
        """Offline: what the daemon staged for this attempt, else what is in the cache. Online: staged here and now."""
        if not self._flags.standalone:
            return retry_staging(lambda: self._stager.stage(task, self._write_line), self._write_line, self._clock)
        return read_record(directory.stage, StagedTask) or self._stager.find(task, self._write_line)

    def _process_context(self, task: Task, workspace: Workspace, python: Path | None) -> ProcessContext:
        files = self._configuration.files
        return ProcessContext(
            task=task,
            worker=self._worker,
            log_level=self._flags.log_level,
            config_file=files[-1] if files else None,
            script_dir=workspace.script_dir,
            root=workspace.root,
            bin_dir=python.parent if python else None,
            auth_token=self._settings.api.token_in_place_of_keys,
            gpus=self._flags.gpus,
        )


def _check_image(env: UsableEnv, resolved: ResolvedContainer | None) -> None:
    """
    Raises:
        EnvironmentBuildError: the environment was built in another image that had this image's name then.
    """
    if env.image and (resolved is None or resolved.prepared.image.identity != env.image):
        raise EnvironmentBuildError(
            f"environment {env.key} was built in another image than the one on this node: fetch the same image on all "
            "nodes, or stage the task again"
        )
