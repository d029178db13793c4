"""The source of a task: brought to the shared cache where there is a network, and from there to a node."""

from __future__ import annotations

import os
import posixpath
import shlex
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.config.settings import GitSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.redact import without_credentials
from hpc_agent.sources import changes, lfs, remote, submodules
from hpc_agent.sources.changes import inside
from hpc_agent.sources.checkout import check_out
from hpc_agent.sources.layout import LayoutPlan, Origin, StagedSource, plan
from hpc_agent.sources.mirror import Mirror, wanted
from hpc_agent.sources.requirement_files import read_requirement_files
from hpc_agent.sources.workspace import EntryKind, EntryPoint, Workspace

Progress = Callable[[str], None]


class SourceStore:
    """Mirrors under ``cache_dir/vcs``, shared by all nodes and, where the folder's mode allows, by a group."""

    def __init__(self, cache_dir: Path, git: GitSettings, clock: Clock, known_hosts: Collection[str] = ()) -> None:
        """``known_hosts``: those that may see ``git``'s password where it names no host itself."""
        self._known_hosts = known_hosts
        self._mirrors = cache_dir / "vcs"
        self._git = git
        self._clock = clock

    def stage(self, script: TaskScript, progress: Progress) -> StagedSource:
        """Bring what ``script`` names into the cache. Uses the network where something is missing.

        Raises:
            SourceError: it cannot be had; the sentence says why.
        """
        if not script.repository.strip():
            return _without_repository(script)
        mirror = self._mirror(script)
        commit = mirror.obtain(wanted(script), progress)
        large = lfs.fetch(mirror, commit, self._clock)
        modules, notes = submodules.stage(mirror, commit, self._resolve, self._clock, progress)
        notes = (*([large] if large else []), *notes)
        for note in notes:
            progress(note)
        return StagedSource(
            Origin.REPOSITORY, mirror.remote.url, mirror.path.name, mirror.remote.name, commit, modules, notes
        )

    def find(self, script: TaskScript) -> StagedSource | None:
        """As ``stage``, from what the cache holds already; None if that is not enough. Never uses the network.

        A branch means the commit that it had when it was last fetched.
        """
        if not script.repository.strip():
            return _without_repository(script)
        mirror = self._mirror(script)
        commit = mirror.commit_of(wanted(script))
        if commit is None:
            return None
        modules, notes = submodules.find(mirror, commit, self._resolve, self._clock)
        return StagedSource(
            Origin.REPOSITORY, mirror.remote.url, mirror.path.name, mirror.remote.name, commit, modules, notes
        )

    def requirement_files(self, script: TaskScript, staged: StagedSource) -> RequirementFiles:
        """The requirement files that count for ``script``, its uncommitted changes applied. Offline.

        Raises:
            SourceError: the uncommitted changes do not fit.
        """
        if staged.origin is not Origin.REPOSITORY:
            return RequirementFiles()
        return read_requirement_files(self._mirror(script), staged, script)

    def checkout(self, script: TaskScript, staged: StagedSource, into: Path, progress: Progress) -> Workspace:
        """Put the code of a task below ``into``, ready to run. Never uses the network.

        Raises:
            SourceError: something is missing, does not fit, or points out of the task's own folder.
        """
        layout = plan(script, staged)
        if staged.origin is Origin.FOLDER:
            return in_folder(layout, Path(staged.name))
        root = into / layout.folder
        if file_records.exists_uncached(root):
            # Left by an attempt that Slurm requeued: its files may be changed or half there.
            shutil.rmtree(root)
        file_records.ensure_directory(into)
        notes: tuple[str, ...] = ()
        if staged.origin is Origin.REPOSITORY:
            progress(f"Checking out {staged.commit} of {staged.repository}")
            notes = check_out(staged, self._mirrors, root)
        return _finish(script, staged, layout, root, notes)

    def _mirror(self, script: TaskScript) -> Mirror:
        where = self._resolve(script.repository)
        return Mirror(self._mirrors / where.folder, where, self._clock)

    def _resolve(self, address: str) -> remote.Remote:
        return remote.resolve(address, self._git, self._known_hosts)


def in_folder(layout: LayoutPlan, folder: Path) -> Workspace:
    """The workspace of a task whose code is in ``folder`` already.

    Raises:
        SourceError: the folder, its working folder or the entry point is not there.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise SourceError(f"the code is to be in {folder} (agent.force_code_dir), which is no folder here")
    cwd = inside(root, layout.working_dir, "the task's working folder is")
    if not cwd.is_dir():
        raise SourceError(f"the working folder {layout.working_dir!r} does not exist in {folder}")
    entry = _found_entry(layout, root, cwd, str(folder))
    return Workspace(root, cwd, entry, layout.notes)


def _without_repository(script: TaskScript) -> StagedSource:
    return StagedSource(Origin.SCRIPT if script.diff.strip() else Origin.NOTHING)


def _finish(
    script: TaskScript, staged: StagedSource, layout: LayoutPlan, root: Path, notes: tuple[str, ...]
) -> Workspace:
    shown = f"commit {staged.commit} of {staged.repository}" if staged.commit else "the task"
    cwd = inside(root, layout.working_dir, "the task's working folder is")
    if layout.script_file:
        cwd.mkdir(parents=True, exist_ok=True)
        file = inside(root, posixpath.join(layout.working_dir, layout.script_file), "the task's script is")
        notes += _write_script(script.diff, file, shown)
    elif changes.is_patch(script.diff, of_repository=bool(script.repository.strip())):
        patch = changes.located(
            changes.read_patch(script.diff), layout.folders, lambda path: os.path.lexists(root / path)
        )
        notes += changes.apply(patch, root, shown=shown)
    if staged.origin is Origin.NOTHING:
        cwd.mkdir(parents=True, exist_ok=True)
    if not cwd.is_dir():
        raise SourceError(f"the working folder {layout.working_dir!r} does not exist in {shown}")
    entry = _found_entry(layout, root, cwd, shown)
    return Workspace(root, cwd, entry, (*staged.notes, *notes, *layout.notes))


def _write_script(text: str, file: Path, shown: str) -> tuple[str, ...]:
    """Write a task's own text, unless the commit has the file: then that stays, and a note says so.

    See docs/internals/clearml-protocol.md#uncommitted-changes.

    Raises:
        SourceError: the commit has the file, and the text is no script either: changes that nobody can apply.
    """
    if not file.exists():
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
        return ()
    if file.read_text(encoding="utf-8", errors="replace").strip() == text.strip():
        return ()
    if file.suffix == ".py" and not changes.is_python(text):
        first = text.strip().partition("\n")[0][:120]
        raise SourceError(
            f"the task's uncommitted changes cannot be applied to {shown}: they are neither a patch nor a script, and "
            f"begin with {first!r}; record them again with `git diff`, or clear them to run the commit as it is"
        )
    return (f"the task's own text for {file.name} is not used: {shown} has a file of that name, which runs instead",)


def _found_entry(layout: LayoutPlan, root: Path, cwd: Path, shown: str) -> EntryPoint:
    """The entry, its file told from its arguments; it is there, inside, and can begin with its __future__ imports.

    Raises:
        SourceError: it is not.
    """
    entry = layout.entry
    if not entry.names_file:
        return entry
    folder = cwd.relative_to(root.resolve()).as_posix()
    for candidate in (entry, *_with_arguments(entry)):
        file = inside(root, posixpath.join(folder, candidate.text), "the task's entry point is")
        if candidate.text and file.is_file():
            break
    else:
        raise SourceError(
            f"the entry point {without_credentials(entry.text)!r} does not exist in folder "
            f"{PurePosixPath(layout.working_dir)} of {shown}: was it committed and pushed?"
        )
    if entry.kind is EntryKind.PYTHON:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        mended = changes.mend_future_imports(text)
        if mended != text:
            file.write_text(mended, encoding="utf-8", errors="surrogateescape")
    return candidate


def _with_arguments(entry: EntryPoint) -> Iterator[EntryPoint]:
    """``entry`` read as a file and its arguments, where it can be."""
    with suppress(ValueError):
        file, *arguments = shlex.split(entry.text)
        if arguments and not entry.arguments:
            yield replace(entry, text=file, arguments=tuple(arguments))
