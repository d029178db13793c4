"""A container image that holds a task: its packages, its code, and if asked for an agent that runs it at start."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

import msgspec

import hpc_agent
from hpc_agent import file_records, process
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
from hpc_agent.containers.prepared import PreparedContainer, remove
from hpc_agent.containers.runtime_api import Argv, Mount
from hpc_agent.containers.start_script import StartScript
from hpc_agent.domain.task import Task
from hpc_agent.envs import interpreter, pip_config
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.errors import ContainerError, ProcessError
from hpc_agent.image_resolver import ResolvedContainer
from hpc_agent.redact import without_credentials
from hpc_agent.staging import TaskStager

Progress = Callable[[str], None]

_BUILD_S = 7200.0
_COMMIT_S = 1800.0
_AGENT_NEEDS = (3, 10)
_SHIPPED_PYTHON = ("test", "tests", "site-packages", "idlelib", "lib2to3", "turtledemo", "__pycache__", "config-*")


class Committing(Protocol):
    """What ``containers.docker`` has, and other runtimes have not."""

    @property
    def program(self) -> str: ...
    def commit(self, container: str, image: str, changes: Sequence[str]) -> Argv: ...
    def inspect_config(self, reference: str) -> Argv: ...


@dataclass(frozen=True)
class ImageOptions:
    """Flags of ``build --docker``. ``entry``: at start the image runs the task (``reuse_task``), a clone of it
    (``clone_task``), or as its base does (empty). ``arguments`` are for the agent in it."""

    target: str
    entry: str = ""
    arguments: Sequence[str] = ()
    servers: Mapping[str, str] = field(default_factory=dict)
    gpus: GpuShare = NO_GPUS


class ImageBuilder:
    """``folder``: a local folder of the user's own, in which files are put together."""

    def __init__(self, stager: TaskStager, folder: Path, progress: Progress) -> None:
        self._stager = stager
        self._folder = folder
        self._progress = progress

    def build(self, task: Task, contained: ResolvedContainer, wishes: ImageOptions) -> str:
        """Make the image ``wishes.target`` and return its name or path.

        Raises:
            ContainerError, EnvironmentBuildError, SourceError: it cannot be made.
        """
        file_records.ensure_directory(self._folder, mode=0o700)
        with tempfile.TemporaryDirectory(prefix="image-", dir=self._folder) as made:
            context = Path(made) / "context"
            context.mkdir()
            self._put_together(task, contained, wishes, context)
            if contained.room.runtime.name == "apptainer":
                return self._apptainer(contained, wishes, context)
            return self._commit(task, contained, wishes, context)

    def _put_together(self, task: Task, contained: ResolvedContainer, wishes: ImageOptions, context: Path) -> None:
        """Everything that goes into the image, in one folder that it will see."""
        staged = self._stager.stage_source(task, self._progress)
        workspace = self._stager.check_out(task, staged, context / "source", self._progress)
        for git_dir in (context / "source").rglob(".git"):
            # Its objects are the cache's; what runs in the image needs no history.
            shutil.rmtree(git_dir) if git_dir.is_dir() else git_dir.unlink()
        task_python, lines = self._stager.lock(task, staged, self._progress, contained)
        _write_lines(context / "lock.txt", lines)
        _add_tools(context)
        install = ImageInstall(packages=bool(lines), agent_python=_image_python(contained) if wishes.entry else "")
        if contained.python is None or (wishes.entry and not install.agent_python):
            base = interpreter.ask(task_python if contained.python is None and task_python else sys.executable)
            self._copy_python(base, context / "python")
            install = replace(
                install,
                base=str(_prefix(base)),
                base_python=base.executable,
                for_task=contained.python is None,
                agent_python=base.executable if wishes.entry else "",
            )
        (context / "install").write_text(install_script(install), encoding="utf-8")
        if wishes.entry:
            self._add_agent(task, contained, wishes, context, workspace.root.name)

    def _copy_python(self, base: Interpreter, into: Path) -> None:
        self._progress(f"Copying {base.shown}, for the image needs it")
        shutil.copytree(_prefix(base), into, symlinks=True, ignore=shutil.ignore_patterns(*_SHIPPED_PYTHON))

    def _add_agent(
        self, task: Task, contained: ResolvedContainer, wishes: ImageOptions, context: Path, root: str
    ) -> None:
        _write_lines(context / "agent.txt", [*pip_config.load().lines, *program_requirements()])
        copy_program(context / "hpc_agent")
        entry = ImageEntryPoint(
            task=task.id,
            image=contained.choice.image,
            code=f"{HOME}/source/{root}",
            clone=wishes.entry == "clone_task",
            arguments=wishes.arguments,
            servers=wishes.servers,
        )
        (context / "entry").write_text(entry_script(entry), encoding="utf-8")

    def _commit(self, task: Task, contained: ResolvedContainer, wishes: ImageOptions, context: Path) -> str:
        docker = cast(Committing, contained.room.runtime)
        room = PreparedContainer(contained.room.runtime, contained.room.image, context.parent / "start")
        name = f"hpc-agent-build-{task.id}-{os.getpid()}"
        config = self._config(docker, contained)
        mounts = [Mount(context, CONTEXT), *_package_folders()]
        start = StartScript(
            "/",
            ["/bin/sh", f"{CONTEXT}/install"],
            {**_for_installer(), **dict(contained.choice.merged.environment)},
            setup=contained.choice.setup,
            first=True,
        )
        self._progress(f"Building in a container of {contained.choice.image}")
        argv = room.command(name, start, mounts, gpus=wishes.gpus, arguments=contained.choice.merged.words, keep=True)
        try:
            self._run(argv, _BUILD_S, "the image cannot be built")
            self._progress(f"Committing it as {wishes.target}")
            changes = _changes(config, task, has_entry=bool(wishes.entry))
            self._run(docker.commit(name, wishes.target, changes), _COMMIT_S, f"{wishes.target} cannot be stored")
        finally:
            remove(contained.room.runtime, name)
        return wishes.target

    def _apptainer(self, contained: ResolvedContainer, wishes: ImageOptions, context: Path) -> str:
        target = Path(wishes.target).absolute()
        archive = context.parent / "context.tar"
        self._run(
            ["tar", f"--directory={context}", "--create", f"--file={archive}", "."], _COMMIT_S, "nothing is built"
        )
        folders = [mount.target for mount in _package_folders()]
        recipe = context.parent / "image.def"
        recipe.write_text(
            definition(
                contained.room.image.location,
                str(archive),
                contained.choice.setup,
                has_entry=bool(wishes.entry),
                folders=folders,
            ),
            encoding="utf-8",
        )
        binds = [word for folder in folders for word in ("--bind", folder)]
        argv = [contained.room.runtime.program, "build", "--force", *binds, str(target), str(recipe)]
        self._progress(f"Building {target}")
        self._run(argv, _BUILD_S, f"{target} cannot be built")
        return str(target)

    def _config(self, docker: Committing, contained: ResolvedContainer) -> _ImageConfig:
        text = self._run(docker.inspect_config(contained.room.image.location), 60.0, "the base image cannot be read")
        return msgspec.json.decode(text, type=_ImageConfig)

    def _run(self, argv: Argv, timeout: float, what: str) -> str:
        try:
            answer = process.run(argv, timeout=timeout)
        except ProcessError as error:
            raise ContainerError(f"{what}: {error}") from error
        for line in answer.stdout.splitlines() if argv[1] in ("run", "build") else ():
            self._progress(line)
        if not answer.ok:
            raise ContainerError(f"{what}: {without_credentials(answer.last_words)}")
        return answer.stdout


@dataclass(frozen=True)
class _ImageConfig:
    """Of the base image, as docker and podman print it: what the build's own start must not replace."""

    Cmd: list[str] | None = None
    Entrypoint: list[str] | None = None
    User: str = ""


def _changes(config: _ImageConfig, task: Task, *, has_entry: bool) -> list[str]:
    entrypoint = [f"{HOME}/entry"] if has_entry else config.Entrypoint or []
    command = [] if has_entry else config.Cmd or ["/bin/sh"]
    changes = [f"ENTRYPOINT {_words(entrypoint)}", f"CMD {_words(command)}", f"LABEL hpc-agent.task={task.id}"]
    # An agent in it writes where its files are; without one everything is as the base had it.
    return changes if has_entry else [*changes, f"USER {config.User or 'root'}"]


def _words(words: Sequence[str]) -> str:
    return msgspec.json.encode(list(words)).decode()


def _image_python(contained: ResolvedContainer) -> str:
    """The image's Python if the agent can run with it, else nothing."""
    python = contained.python.interpreter if contained.python else None
    return python.executable if python and python.version >= _AGENT_NEEDS else ""


def _prefix(base: Interpreter) -> Path:
    """
    Raises:
        ContainerError: the interpreter is part of the system.
    """
    prefix = Path(base.executable).parent.parent
    if str(prefix) in ("/", "/usr", "/usr/local"):
        raise ContainerError(
            f"the image has no Python that will do, and {base.shown} is among this system's files: choose an image "
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
    told = {name: value for name, value in os.environ.items() if name in names or name.startswith("UV_")}
    return {**told, **{k: v for k, v in pip_config.load().environ.items() if k != "SSL_CERT_FILE"}}


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


_NOT_NEEDED = frozenset({"uv", "virtualenv"})
"""What builds environments: an image has its own, and 60 MB less without these."""


def program_requirements() -> list[str]:
    """What the program needs, in the versions that run now."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pending = ["hpc-agent"]
    found: dict[str, str] = {}
    while pending:
        for line in importlib.metadata.requires(pending.pop()) or ():
            wanted = Requirement(line)
            name = canonicalize_name(wanted.name)
            if name in found or name in _NOT_NEEDED or "extra" in str(wanted.marker or ""):
                continue
            try:
                version = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = line  # for another Python than ours; the image's may want it
                continue
            found[name] = f"{name}=={version}" + (f"; {wanted.marker}" if wanted.marker else "")
            pending.append(name)
    return sorted(found.values())


def copy_program(into: Path) -> None:
    """The package itself to the new folder ``into``."""
    own = Path(hpc_agent.__file__).parent
    shutil.copytree(own, into, ignore=shutil.ignore_patterns("__pycache__", "server"))
