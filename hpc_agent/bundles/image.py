"""A container image that holds a task: its packages, its code, and if asked for an agent that runs it at start."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import msgspec
from msgspec.structs import replace

from hpc_agent import file_records
from hpc_agent.bundles.program import copy_program, program_requirements
from hpc_agent.bundles.recipe import (
    CONTEXT,
    HOME,
    ImageEntryPoint,
    ImageInstall,
    definition,
    entry_script,
    install_script,
)
from hpc_agent.containers.gpu_share import NO_GPUS, GpuShare
from hpc_agent.containers.prepared import remove
from hpc_agent.containers.runtime_api import Argv, Mount
from hpc_agent.containers.start_script import StartScript
from hpc_agent.domain.task import Task
from hpc_agent.envs import interpreter, pip_config
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.errors import ContainerError, ProcessError
from hpc_agent.image_resolver import ResolvedContainer
from hpc_agent.process import programs
from hpc_agent.progress import Progress
from hpc_agent.redact import without_credentials
from hpc_agent.staging import TaskStager
from hpc_agent.struct_types import decodable

_BUILD_SECONDS = 7200.0
_COMMIT_SECONDS = 1800.0
_MIN_AGENT_PYTHON = (3, 10)
_NOT_COPIED = (
    "test",
    "tests",
    "site-packages",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "__pycache__",
    "config-*",
)


class CommittingRuntime(Protocol):
    """Runtime that can commit a container as an image: only ``containers.docker``."""

    @property
    def program(self) -> str: ...
    def commit(self, container: str, image: str, changes: Sequence[str]) -> Argv: ...
    def inspect_config(self, reference: str) -> Argv: ...


class ImageOptions(msgspec.Struct, frozen=True):
    """Flags of ``build --docker``. ``entry``: at start the image runs the task (``reuse_task``), a clone of it
    (``clone_task``), or as its base does (empty). ``arguments`` are for the agent in it."""

    target: str
    entry: str = ""
    arguments: Sequence[str] = ()
    servers: Mapping[str, str] = msgspec.field(default_factory=dict)
    gpus: GpuShare = NO_GPUS


class ImageBuilder:
    """Builder of images. ``folder``: a local folder of the user's own for the build context."""

    def __init__(self, stager: TaskStager, folder: Path, progress: Progress) -> None:
        self._stager = stager
        self._folder = folder
        self._progress = progress

    def build(self, task: Task, container: ResolvedContainer, options: ImageOptions) -> str:
        """Make the image ``options.target`` and return its name or path.

        Raises:
            ContainerError, EnvironmentBuildError, SourceError: it cannot be made.
        """
        file_records.ensure_directory(self._folder, mode=0o700)
        with tempfile.TemporaryDirectory(prefix="image-", dir=self._folder) as made:
            context = Path(made) / "context"
            context.mkdir()
            self._fill_context(task, container, options, context)
            if container.prepared.runtime.name in ("apptainer", "singularity"):
                return self._apptainer(container, options, context)
            return self._commit(task, container, options, context)

    def _fill_context(self, task: Task, container: ResolvedContainer, options: ImageOptions, context: Path) -> None:
        """Everything that goes into the image, in one folder that it will see."""
        staged = self._stager.stage_source(task, self._progress)
        workspace = self._stager.check_out(task, staged, context / "source", self._progress)
        for git_dir in (context / "source").rglob(".git"):
            # Its objects are the cache's; what runs in the image needs no history.
            shutil.rmtree(git_dir) if git_dir.is_dir() else git_dir.unlink()
        task_python, lines = self._stager.lock(task, staged, self._progress, container)
        _write_lines(context / "lock.txt", lines)
        _add_tools(context)
        install = ImageInstall(packages=bool(lines), agent_python=_image_python(container) if options.entry else "")
        if container.python is None or (options.entry and not install.agent_python):
            base = interpreter.query(task_python if container.python is None and task_python else sys.executable)
            self._copy_python(base, context / "python")
            install = replace(
                install,
                base=str(_prefix(base)),
                base_python=base.executable,
                for_task=container.python is None,
                agent_python=base.executable if options.entry else "",
            )
        (context / "install").write_text(install_script(install), encoding="utf-8")
        if options.entry:
            self._add_agent(task, container, options, context, workspace.root.name)

    def _copy_python(self, base: Interpreter, into: Path) -> None:
        self._progress(f"Copying {base.description}, which the image needs")
        shutil.copytree(_prefix(base), into, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))

    def _add_agent(
        self, task: Task, container: ResolvedContainer, options: ImageOptions, context: Path, root: str
    ) -> None:
        _write_lines(context / "agent.txt", [*pip_config.load().lines, *program_requirements()])
        copy_program(context / "hpc_agent")
        entry = ImageEntryPoint(
            task=task.id,
            image=container.choice.image,
            code=f"{HOME}/source/{root}",
            clone=options.entry == "clone_task",
            arguments=options.arguments,
            servers=options.servers,
        )
        (context / "entry").write_text(entry_script(entry), encoding="utf-8")

    def _commit(self, task: Task, container: ResolvedContainer, options: ImageOptions, context: Path) -> str:
        docker = cast(CommittingRuntime, container.prepared.runtime)
        prepared = msgspec.structs.replace(container.prepared, folder=context.parent / "start")
        name = f"hpc-agent-build-{task.id}-{os.getpid()}"
        config = self._config(docker, container)
        mounts = [Mount(context, CONTEXT), *_package_folders()]
        start = StartScript(
            "/",
            ["/bin/sh", f"{CONTEXT}/install"],
            {**_for_installer(), **dict(container.choice.merged.environment)},
            setup=container.choice.setup,
            first=True,
        )
        self._progress(f"Building in a container of {container.choice.image}")
        argv = prepared.command(
            name, start, mounts, gpus=options.gpus, arguments=container.choice.merged.words, keep=True
        )
        try:
            self._run(argv, _BUILD_SECONDS, "the image cannot be built")
            self._progress(f"Committing it as {options.target}")
            changes = _changes(config, task, has_entry=bool(options.entry))
            self._run(
                docker.commit(name, options.target, changes), _COMMIT_SECONDS, f"{options.target} cannot be stored"
            )
        finally:
            remove(container.prepared.runtime, name)
        return options.target

    def _apptainer(self, container: ResolvedContainer, options: ImageOptions, context: Path) -> str:
        target = Path(options.target).absolute()
        archive = context.parent / "context.tar"
        self._run(
            ["tar", f"--directory={context}", "--create", f"--file={archive}", "."], _COMMIT_SECONDS, "nothing is built"
        )
        folders = [mount.target for mount in _package_folders()]
        recipe = context.parent / "image.def"
        recipe.write_text(
            definition(
                container.prepared.image.location,
                str(archive),
                container.choice.setup,
                has_entry=bool(options.entry),
                folders=folders,
            ),
            encoding="utf-8",
        )
        binds = [word for folder in folders for word in ("--bind", folder)]
        argv = [container.prepared.runtime.program, "build", "--force", *binds, str(target), str(recipe)]
        self._progress(f"Building {target}")
        self._run(argv, _BUILD_SECONDS, f"{target} cannot be built")
        return str(target)

    def _config(self, docker: CommittingRuntime, container: ResolvedContainer) -> _ImageConfig:
        text = self._run(
            docker.inspect_config(container.prepared.image.location), 60.0, "the base image cannot be read"
        )
        return msgspec.json.decode(text, type=decodable(_ImageConfig))

    def _run(self, argv: Argv, timeout: float, what: str) -> str:
        try:
            answer = programs.run(argv, timeout=timeout)
        except ProcessError as error:
            raise ContainerError(f"{what}: {error}") from error
        for line in answer.stdout.splitlines() if argv[1] in ("run", "build") else ():
            self._progress(line)
        if not answer.ok:
            raise ContainerError(f"{what}: {without_credentials(answer.last_words)}")
        return answer.stdout


class _ImageConfig(msgspec.Struct, frozen=True):
    """Start settings of the base image, as docker and podman print them; the build must keep them."""

    Cmd: list[str] | None = None
    Entrypoint: list[str] | None = None
    User: str = ""


def _changes(config: _ImageConfig, task: Task, *, has_entry: bool) -> list[str]:
    entrypoint = [f"{HOME}/entry"] if has_entry else config.Entrypoint or []
    command = [] if has_entry else config.Cmd or ["/bin/sh"]
    changes = [f"ENTRYPOINT {_json_list(entrypoint)}", f"CMD {_json_list(command)}", f"LABEL hpc-agent.task={task.id}"]
    # An agent in it writes where its files are; without one everything is as the base had it.
    return changes if has_entry else [*changes, f"USER {config.User or 'root'}"]


def _json_list(words: Sequence[str]) -> str:
    return msgspec.json.encode(list(words)).decode()


def _image_python(container: ResolvedContainer) -> str:
    """The image's Python if the agent can run with it, else nothing."""
    python = container.python.interpreter if container.python else None
    return python.executable if python and python.version >= _MIN_AGENT_PYTHON else ""


def _prefix(base: Interpreter) -> Path:
    """Folder of an interpreter that can be copied.

    Raises:
        ContainerError: the interpreter is part of the system.
    """
    prefix = Path(base.executable).parent.parent
    if str(prefix) in ("/", "/usr", "/usr/local"):
        raise ContainerError(
            f"the image has no suitable Python, and {base.description} is among this system's files: choose an image "
            "with Python 3.10 or newer, or run hpc-agent with an interpreter in a folder of its own"
        )
    return prefix


def _add_tools(context: Path) -> None:
    """The installer, and the certificates with which it knows this site's indexes."""
    import uv

    (context / "tools").mkdir()
    _link(Path(uv.find_uv_bin()), context / "tools" / "uv")
    certificates = pip_config.load().environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_FILE")
    if certificates and Path(certificates).is_file():
        shutil.copyfile(certificates, context / "certificates.pem")


def _package_folders() -> list[Mount]:
    """Folders that requirement lines may name, under their own path."""
    return [Mount(Path(path), path) for path in pip_config.load().folders]


def _for_installer() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    forwarded = {name: value for name, value in os.environ.items() if name in names or name.startswith("UV_")}
    return {**forwarded, **{k: v for k, v in pip_config.load().environ.items() if k != "SSL_CERT_FILE"}}


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
