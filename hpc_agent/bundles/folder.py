"""A task's environment and code in one folder that can be moved and needs no network."""

from __future__ import annotations

import secrets
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent import file_records
from hpc_agent.bundles.recipe import FolderRun, run_script
from hpc_agent.domain.task import Requirements, Task
from hpc_agent.errors import EnvironmentBuildError, InputError, ProcessError
from hpc_agent.process import programs
from hpc_agent.progress import Progress
from hpc_agent.sources.checkout import detach_from_mirror
from hpc_agent.sources.workspace import Workspace
from hpc_agent.staging import StagedTask, TaskStager

_MARKER_FILE = ".hpc-agent-build.json"
_INSTALL_SECONDS = 7200.0


class FolderOptions(msgspec.Struct, frozen=True):
    """Flags of ``build``. ``python_options``: of the interpreter; ``exports``: variables that the folder's script sets;
    ``globally``: install the packages into the interpreter itself."""

    python_options: Sequence[str] = ()
    exports: Mapping[str, str] = msgspec.field(default_factory=dict)
    globally: bool = False


class BuiltFolder(msgspec.Struct, frozen=True):
    """Built folder. ``packages`` as ``pip freeze`` prints them; ``entry``: the entry point's file or the command
    line."""

    folder: Path
    packages: tuple[str, ...]
    source: Path
    entry: str

    @property
    def bin(self) -> Path:
        return self.folder / "environment" / "bin"


class _BuildMarker(msgspec.Struct, frozen=True):
    task: str


class FolderBuilder:
    def __init__(self, stager: TaskStager, progress: Progress) -> None:
        self._stager = stager
        self._progress = progress

    def build(self, task: Task, target: Path, options: FolderOptions) -> BuiltFolder:
        """Build ``target``, or replace it if it is an earlier build.

        Raises:
            InputError: ``target`` holds something else.
            SourceError, EnvironmentBuildError: code or environment cannot be staged.
        """
        _check_target(target)
        staged = self._stage(task, options)
        file_records.ensure_directory(target.parent)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
        partial.mkdir()
        try:
            workspace = self._stager.check_out(task, staged, partial / "source", self._progress)
            for note in workspace.notes:
                self._progress(note)
            detach_from_mirror(staged.source, workspace.root)
            packages = self._environment(task, staged, partial / "environment")
            script = partial / "run"
            script.write_text(run_script(_run(task, workspace, partial.resolve(), options)), encoding="utf-8")
            script.chmod(0o755)
            file_records.write_record(partial / _MARKER_FILE, _BuildMarker(task.id))
            _swap_in(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        root = target / workspace.root.relative_to(partial.resolve())
        return BuiltFolder(
            target, packages, root, _entry(workspace, target / workspace.cwd.relative_to(partial.resolve()))
        )

    def _stage(self, task: Task, options: FolderOptions) -> StagedTask:
        if not options.globally:
            return self._stager.stage(task, self._progress)
        staged = self._stager.stage_source(task, self._progress)
        python, lines = self._stager.lock(task, staged, self._progress)
        if lines:
            install_globally(python, lines, self._progress)
        nothing = replace(task, script=replace(task.script, requirements=Requirements(pip=())))
        return self._stager.stage(nothing, self._progress)

    def _environment(self, task: Task, staged: StagedTask, into: Path) -> tuple[str, ...]:
        if staged.env is None:
            # Only the folder: the task does not run Python.
            file_records.ensure_directory(into / "bin")
            return ()
        self._progress(f"Unpacking environment {staged.env} for task {task.id}")
        return self._stager.copy_env(staged, into)


def install_globally(python: str, lines: Sequence[str], progress: Progress) -> None:
    """Put exact requirement lines into the interpreter ``python`` itself.

    Raises:
        EnvironmentBuildError: with the installer's message; a distribution's Python often refuses.
    """
    import uv

    progress(f"Installing into {python} itself")
    argv = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--python", python, "--requirements", "-"]
    try:
        answer = programs.run(argv, timeout=_INSTALL_SECONDS, input="".join(f"{line}\n" for line in lines))
    except ProcessError as error:
        raise EnvironmentBuildError(f"packages cannot be installed into {python}: {error}") from error
    if not answer.ok:
        raise EnvironmentBuildError(f"packages cannot be installed into {python}: {answer.last_words}")


def _check_target(target: Path) -> None:
    if not target.exists() or (target / _MARKER_FILE).exists():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise InputError(f"{target} exists and is not an earlier build: choose another folder with --target")


def _swap_in(partial: Path, target: Path) -> None:
    """Put the new folder in the place of the old, which is moved away first: no reader sees a partial one."""
    old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _run(task: Task, workspace: Workspace, folder: Path, options: FolderOptions) -> FolderRun:
    def inside(path: Path) -> str:
        return path.resolve().relative_to(folder).as_posix()

    # Found on the PATH that the script sets: the folder may be moved.
    python = Path("python")
    return FolderRun(
        title=f"ClearML task {task.id}: {task.name}",
        cwd=inside(workspace.cwd),
        python_path=inside(workspace.script_dir),
        command=workspace.command(python, {}, options=options.python_options),
        exports=options.exports,
    )


def _entry(workspace: Workspace, cwd: Path) -> str:
    """The entry point's file below ``cwd``; for a module or a command its command line."""
    if not workspace.entry.names_file:
        return shlex.join(workspace.command(Path("python"), {}))
    return str(cwd / workspace.entry.text)
