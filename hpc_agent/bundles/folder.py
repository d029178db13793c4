"""A task's environment and code in one folder that can be moved and needs no network."""

from __future__ import annotations

import secrets
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hpc_agent import file_records, process
from hpc_agent.bundles.recipe import FolderRun, run_script
from hpc_agent.domain.task import Requirements, Task
from hpc_agent.errors import EnvironmentBuildError, InputError, ProcessError
from hpc_agent.sources.checkout import own_objects
from hpc_agent.sources.workspace import Workspace
from hpc_agent.staging import StagedTask, TaskStager

Progress = Callable[[str], None]

_MARK = ".hpc-agent-build.json"
_GLOBALLY_S = 7200.0


@dataclass(frozen=True)
class FolderOptions:
    """Flags of ``build``. ``exports``: variables that the folder's script sets."""

    options: Sequence[str] = ()
    exports: Mapping[str, str] = field(default_factory=dict)
    globally: bool = False


@dataclass(frozen=True)
class BuiltFolder:
    """``packages`` as ``pip freeze`` prints them; ``entry`` is the entry point's file or the words that are run."""

    folder: Path
    packages: tuple[str, ...]
    source: Path
    entry: str

    @property
    def bin(self) -> Path:
        return self.folder / "environment" / "bin"


@dataclass(frozen=True)
class _Mark:
    task: str


class FolderBuilder:
    def __init__(self, stager: TaskStager, progress: Progress) -> None:
        self._stager = stager
        self._progress = progress

    def build(self, task: Task, target: Path, wishes: FolderOptions) -> BuiltFolder:
        """Make ``target``, or make it anew if it is an earlier build.

        Raises:
            InputError: ``target`` holds something else.
            SourceError, EnvironmentBuildError: code or environment cannot be had.
        """
        _check_free(target)
        staged = self._stage(task, wishes)
        file_records.ensure_directory(target.parent)
        making = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
        making.mkdir()
        try:
            workspace = self._stager.check_out(task, staged, making / "source", self._progress)
            for note in workspace.notes:
                self._progress(note)
            own_objects(staged.source, workspace.root)
            packages = self._environment(task, staged, making / "environment")
            script = making / "run"
            script.write_text(run_script(_run(task, workspace, making.resolve(), wishes)), encoding="utf-8")
            script.chmod(0o755)
            file_records.write_record(making / _MARK, _Mark(task.id))
            _replace(making, target)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        root = target / workspace.root.relative_to(making.resolve())
        return BuiltFolder(
            target, packages, root, _entry(workspace, target / workspace.cwd.relative_to(making.resolve()))
        )

    def _stage(self, task: Task, wishes: FolderOptions) -> StagedTask:
        if not wishes.globally:
            return self._stager.stage(task, self._progress)
        staged = self._stager.stage_source(task, self._progress)
        python, lines = self._stager.lock(task, staged, self._progress)
        if lines:
            install_globally(python, lines, self._progress)
        nothing = replace(task, script=replace(task.script, requirements=Requirements(pip=())))
        return self._stager.stage(nothing, self._progress)

    def _environment(self, task: Task, staged: StagedTask, into: Path) -> tuple[str, ...]:
        if staged.env is None:
            # Nothing but the folder: what runs is no Python.
            file_records.ensure_directory(into / "bin")
            return ()
        self._progress(f"Unpacking environment {staged.env} for task {task.id}")
        return self._stager.copy_env(staged, into)


def install_globally(python: str, lines: Sequence[str], progress: Progress) -> None:
    """Put exact requirement lines into the interpreter ``python`` itself.

    Raises:
        EnvironmentBuildError: in the installer's own words; a distribution's Python often refuses.
    """
    import uv

    progress(f"Installing into {python} itself")
    argv = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--python", python, "--requirements", "-"]
    try:
        answer = process.run(argv, timeout=_GLOBALLY_S, input="".join(f"{line}\n" for line in lines))
    except ProcessError as error:
        raise EnvironmentBuildError(f"nothing could be installed into {python}: {error}") from error
    if not answer.ok:
        raise EnvironmentBuildError(f"nothing could be installed into {python}: {answer.last_words}")


def _check_free(target: Path) -> None:
    if not target.exists() or (target / _MARK).exists():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise InputError(f"{target} is there already and is no earlier build: name another folder with --target")


def _replace(making: Path, target: Path) -> None:
    """Put the new folder in the place of the old, which is moved away first: nobody finds half of either."""
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    if target.exists():
        target.rename(old)
    making.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _run(task: Task, workspace: Workspace, folder: Path, wishes: FolderOptions) -> FolderRun:
    def inside(path: Path) -> str:
        return path.resolve().relative_to(folder).as_posix()

    # Found on the PATH that the script sets: the folder may be moved.
    python = Path("python")
    return FolderRun(
        title=f"ClearML task {task.id}: {task.name}",
        cwd=inside(workspace.cwd),
        python_path=inside(workspace.script_dir),
        command=workspace.command(python, {}, options=wishes.options),
        exports=wishes.exports,
    )


def _entry(workspace: Workspace, cwd: Path) -> str:
    """The entry point's file below ``cwd``; of a module or a command the words that are run."""
    if not workspace.entry.names_file:
        return shlex.join(workspace.command(Path("python"), {}))
    return str(cwd / workspace.entry.text)
