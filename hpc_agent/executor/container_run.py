"""Container of a task's process: mounts, variables, start script, and clean-up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent.config.job_config import write_job_config
from hpc_agent.config.load import Configuration
from hpc_agent.config.tree import get
from hpc_agent.containers.choice import DEFAULTS
from hpc_agent.containers.gpu_share import GpuShare, maker_of_node, share
from hpc_agent.containers.prepared import START, remove
from hpc_agent.containers.rank_variables import passing_on
from hpc_agent.containers.runtime_api import Mount
from hpc_agent.containers.start_script import StartScript, is_exportable
from hpc_agent.domain.ids import WorkerId
from hpc_agent.domain.task import Task
from hpc_agent.envs.env_store import UsableEnv
from hpc_agent.errors import ContainerError, HpcAgentError
from hpc_agent.executor import conda_activation
from hpc_agent.executor.process_environment import (
    ProcessContext,
    forwarded_environment,
    process_environment,
    set_gpus,
    translate,
)
from hpc_agent.file_records import ensure_directory
from hpc_agent.image_resolver import ResolvedContainer
from hpc_agent.redact import without_credentials
from hpc_agent.schedulers import backends
from hpc_agent.sources.workspace import Workspace

WORK = "/hpc-agent/work"
CODE = "/hpc-agent/code"
ENVIRONMENT = "/hpc-agent/environment"
CACHE = "/hpc-agent/cache"
HOME = "/hpc-agent/home"
_CONFIG = "clearml.conf"
_ALIVE = "alive"
_SWEEP_S = 120.0
_SYSTEM_FOLDERS = ("/", "/usr", "/usr/local", "/bin")


class ContainerProcess(msgspec.Struct, frozen=True):
    """Process to run in a container. ``options`` are the interpreter's; ``gpus`` the flag of ``execute``."""

    task: Task
    worker: WorkerId
    workspace: Workspace
    env: UsableEnv | None
    log_level: str
    options: Sequence[str]
    gpus: str | None


class ContainerRun:
    """Container of one run. ``workdir`` is the run's own folder; its ``code`` is mounted in the container."""

    def __init__(self, resolved: ResolvedContainer, workdir: Path, name: str, configuration: Configuration) -> None:
        self._choice = resolved.choice
        self._container = replace(resolved.prepared, folder=workdir / "start")
        self._workdir = workdir
        self._name = name
        self._configuration = configuration
        self._settings = configuration.settings
        self._alive: int | None = None
        self._outside_code: Path | None = None
        self.code = ensure_directory(workdir / "code").resolve()

    def command(self, run: ContainerProcess, write_line: Callable[[str], None]) -> list[str]:
        """The command that runs the task in its container.

        Raises:
            ContainerError: the image does not fit.
        """
        runtime = self._container.runtime
        remove(runtime, self._name)  # of an earlier start of the job that was killed
        mounts = [*self._mounts(run.env)]
        arguments: Sequence[str] = self._choice.merged.words
        variables = self._choice.merged.environment
        if not runtime.isolated:
            translated = translate(self._choice.merged, os.environ, ours=frozenset(DEFAULTS))
            arguments, variables = (), translated.environment
            mounts += [Mount(ensure_directory(self._workdir / "home"), HOME, writable=True), *translated.mounts]
            for note in translated.notes:
                write_line(note)
        job = backends.job_variables()
        gpus = share(
            run.gpus,
            os.environ,
            maker=maker_of_node(),
            job_variables=job.gpu_variables if job else (),
        )
        self._open_alive_pipe()
        root = run.workspace.root
        if self.code not in (root, *root.parents):
            # The site's own folder of code (agent.force_code_dir).
            self._outside_code = root
            mounts.append(Mount(root, CODE, writable=True))
        start = self._start_script(
            run, {**forwarded_environment(os.environ, backends.job_prefixes()), **dict(variables)}, gpus
        )
        self._announce(run.task, arguments, write_line)
        argv = self._container.command(
            self._name, start, mounts, gpus=gpus, arguments=arguments, labels=self._labels(run.worker)
        )
        return argv if runtime.isolated else passing_on(argv)

    def clean_up(self) -> None:
        """Remove the container and its files from this machine, also when its client was killed."""
        if self._alive is not None:
            os.close(self._alive)
        remove(self._container.runtime, self._name)
        shutil.rmtree(self.code, ignore_errors=True)
        if self._container.runtime.isolated and self.code.exists():
            self._sweep()

    def _open_alive_pipe(self) -> None:
        """Pipe whose end ends the container: one of a container daemon does not end with the job by itself."""
        if self._container.runtime.isolated:
            pipe = ensure_directory(self._container.folder, mode=0o700) / _ALIVE
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe, 0o600)
            self._alive = os.open(pipe, os.O_RDWR)  # does not wait for a reader

    def _sweep(self) -> None:
        """Files that a daemon's root has written for us are not ours to remove."""
        argv = ["/bin/sh", "-c", f"rm -rf {WORK}/* {WORK}/.[!.]*"]
        mounts = [Mount(self.code, WORK, writable=True)]
        try:
            self._container.run(argv, timeout=_SWEEP_S, mounts=mounts, arguments=["--user=0:0"])
        except HpcAgentError:
            return  # what is left is in the run's own folder, under its name

    def _mounts(self, env: UsableEnv | None) -> list[Mount]:
        write_job_config(
            self._configuration,
            ensure_directory(self._container.folder, mode=0o700) / _CONFIG,
            {"sdk.storage.cache.default_base_dir": CACHE},
        )
        cache = Path(str(get(self._configuration.tree, "sdk.storage.cache.default_base_dir") or "~/.clearml/cache"))
        mounts = [
            Mount(self.code, WORK, writable=True),
            Mount(ensure_directory(cache.expanduser()), CACHE, writable=True),
        ]
        if env is not None:
            mounts.append(Mount(env.root, _env_inside(env)))
            mounts += [] if env.image or env.conda else [_interpreter(env)]
        return mounts

    def _start_script(self, run: ContainerProcess, inherited: Mapping[str, str], gpus: GpuShare) -> StartScript:
        space = Workspace(self._inside(run.workspace.root), self._inside(run.workspace.cwd), run.workspace.entry)
        inside = _env_inside(run.env) if run.env else ""
        python = Path(f"{inside}/bin/python") if run.env else Path("python3")
        exports = process_environment(
            inherited,
            ProcessContext(
                task=run.task,
                worker=run.worker,
                log_level=run.log_level,
                config_file=Path(START) / _CONFIG,
                script_dir=space.script_dir,
                root=space.root,
                bin_dir=None,
                auth_token=self._settings.api.token_in_place_of_keys,
                gpus=run.gpus,
            ),
            self._settings.agent,
        )
        if self._container.runtime.isolated:
            set_gpus(exports, gpus, skip_flag=self._settings.hpc.container.skip_gpus_flag)
        git = self._settings.git
        if git.password:
            exports |= {"CLEARML_AGENT_GIT_USER": git.user, "CLEARML_AGENT_GIT_PASS": git.password.reveal()}
        exports |= {"CLEARML_DOCKER_IMAGE": self._choice.image}
        if run.env:
            exports |= {"CONDA_PREFIX" if run.env.conda else "VIRTUAL_ENV": inside}
        return StartScript(
            cwd=str(space.cwd),
            command=space.command(python, exports, options=run.options),
            exports=exports,
            path_first=f"{inside}/bin" if run.env else "",
            setup=(*(conda_activation.SOURCE_SCRIPTS if run.env and run.env.conda else ()), *self._choice.setup),
            python=str(python) if run.env else "",
            first=self._container.runtime.isolated,
            home=HOME,
            alive=f"{START}/{_ALIVE}" if self._container.runtime.isolated else "",
        )

    def _inside(self, path: Path) -> Path:
        if self._outside_code:
            return Path(CODE) / path.relative_to(self._outside_code)
        return Path(WORK) / path.resolve().relative_to(self.code)

    def _labels(self, worker: WorkerId) -> list[str]:
        docker = self._settings.docker
        extra = docker.extra_labels.split() if isinstance(docker.extra_labels, str) else docker.extra_labels
        return [f"clearml-worker-id={worker}", f"clearml-parent-worker-id={worker}", *extra]

    def _announce(self, task: Task, arguments: Sequence[str], write_line: Callable[[str], None]) -> None:
        for note in self._choice.merged.notes:
            write_line(note)
        default = "" if self._choice.by_task else "default "
        shown = without_credentials(" ".join(arguments))
        write_line(
            f"Running Task {task.id} inside {default}{self._container.runtime.name}: {self._choice.image} "
            f"arguments: {shown}"
        )
        if self._choice.setup:
            write_line(f"custom_setup_bash_script: {len(self._choice.setup)} lines")
        outside = [name for name in task.environment if not is_exportable(name)]
        if outside and self._settings.agent.enable_task_env:
            write_line(
                f"Not set in the container, because a shell cannot export these names: {', '.join(map(repr, outside))} "
                "(section Environment)"
            )


def _env_inside(env: UsableEnv) -> str:
    """Where a container finds the environment: files of conda's name the folder that it is in."""
    return str(env.root) if env.conda else ENVIRONMENT


def _interpreter(env: UsableEnv) -> Mount:
    """This site's own Python under its own path, which the environment's ``bin/python`` is a link to.

    Raises:
        ContainerError: it lies among the system's files.
    """
    prefix = Path(env.base).parent.parent
    if str(prefix) in _SYSTEM_FOLDERS:
        raise ContainerError(
            f"the environment's interpreter {env.base} cannot be mounted into an image, which has a {prefix} itself: "
            "set agent.python_binary to one in a folder of its own (`uv python install` makes one), or let the image "
            "bring Python (hpc.container.python = image)"
        )
    return Mount(prefix, str(prefix))
