"""Store of task sources: staged in the shared cache where there is a network, checked out on a node."""

from __future__ import annotations

import os
import posixpath
import shlex
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from msgspec.structs import replace

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.domain.env import RequirementFiles
from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.progress import Progress
from hpc_agent.redact import without_credentials
from hpc_agent.sources import changes, lfs, remote, submodules
from hpc_agent.sources.changes import resolve_inside
from hpc_agent.sources.checkout import check_out
from hpc_agent.sources.layout import LayoutPlan, Origin, StagedSource, plan_layout
from hpc_agent.sources.mirror import Mirror, revision_of
from hpc_agent.sources.requirement_files import read_requirement_files
from hpc_agent.sources.workspace import EntryKind, EntryPoint, Workspace


class SourceStore:
    """Mirrors under ``cache_dir/vcs``, shared by all nodes and, where the folder's mode allows, by a group."""

    def __init__(self, cache_dir: Path, git: GitSettings, clock: Clock, known_hosts: Collection[str] = ()) -> None:
        """Create a store. ``known_hosts``: those that may get ``git``'s password if it names no host itself."""
        self._known_hosts = known_hosts
        self._mirrors = cache_dir / "vcs"
        self._git = git
        self._clock = clock

    def stage(self, script: TaskScript, progress: Progress) -> StagedSource:
        """Bring what ``script`` names into the cache. Uses the network where something is missing.

        Raises:
            SourceError: it cannot be fetched.
        """
        if not script.repository.strip():
            return _without_repository(script)
        mirror = self._mirror(script)
        commit = mirror.obtain(revision_of(script), progress)
        lfs_note = lfs.fetch(mirror, commit, self._clock)
        modules, notes = submodules.stage(mirror, commit, self._resolve, self._clock, progress)
        notes = (*([lfs_note] if lfs_note else []), *notes)
        for note in notes:
            progress(note)
        return StagedSource(
            Origin.REPOSITORY, mirror.remote.url, mirror.path.name, mirror.remote.name, commit, modules, notes
        )

    def find(self, script: TaskScript) -> StagedSource | None:
        """Source as by ``stage``, from the cache only; None if something is missing. Never uses the network.

        A branch means the commit that it had when it was last fetched.
        """
        if not script.repository.strip():
            return _without_repository(script)
        mirror = self._mirror(script)
        commit = mirror.commit_of(revision_of(script))
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
        layout = plan_layout(script, staged)
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
        return _open_workspace(script, staged, layout, root, notes)

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
        raise SourceError(f"the code should be in {folder} (agent.force_code_dir), which is not a folder here")
    cwd = resolve_inside(root, layout.working_dir, "the task's working folder is")
    if not cwd.is_dir():
        raise SourceError(f"the working folder {layout.working_dir!r} does not exist in {folder}")
    entry = _resolve_entry(layout, root, cwd, str(folder))
    return Workspace(root, cwd, entry, layout.notes)


def _without_repository(script: TaskScript) -> StagedSource:
    return StagedSource(Origin.SCRIPT if script.diff.strip() else Origin.NOTHING)


def _open_workspace(
    script: TaskScript, staged: StagedSource, layout: LayoutPlan, root: Path, notes: tuple[str, ...]
) -> Workspace:
    label = f"commit {staged.commit} of {staged.repository}" if staged.commit else "the task"
    cwd = resolve_inside(root, layout.working_dir, "the task's working folder is")
    if layout.script_file:
        cwd.mkdir(parents=True, exist_ok=True)
        file = resolve_inside(root, posixpath.join(layout.working_dir, layout.script_file), "the task's script is")
        notes += _write_script(script.diff, file, label)
    elif changes.is_patch(script.diff, of_repository=bool(script.repository.strip())):
        patch = changes.relative_to_root(
            changes.read_patch(script.diff), layout.folders, lambda path: os.path.lexists(root / path)
        )
        notes += changes.apply(patch, root, label=label)
    if staged.origin is Origin.NOTHING:
        cwd.mkdir(parents=True, exist_ok=True)
    if not cwd.is_dir():
        raise SourceError(f"the working folder {layout.working_dir!r} does not exist in {label}")
    entry = _resolve_entry(layout, root, cwd, label)
    return Workspace(root, cwd, entry, (*staged.notes, *notes, *layout.notes))


def _write_script(text: str, file: Path, label: str) -> tuple[str, ...]:
    """Write a task's own text, unless the commit has the file: then that is kept, with a note.

    See docs/internals/clearml-protocol.md#uncommitted-changes.

    Raises:
        SourceError: the commit has the file, and the text is not a script either: changes that cannot be applied.
    """
    if not file.exists():
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
        return ()
    if file.read_text(encoding="utf-8", errors="replace").strip() == text.strip():
        return ()
    if file.suffix == ".py":
        changes.refuse_unrecognised(text, label)
    return (f"the task's own text for {file.name} is not used: {label} has a file of that name, which runs instead",)


def _resolve_entry(layout: LayoutPlan, root: Path, cwd: Path, label: str) -> EntryPoint:
    """The entry point with file and arguments separated; its file exists in the task's folder.

    Raises:
        SourceError: it does not exist, or is outside.
    """
    entry = layout.entry
    if not entry.names_file:
        return entry
    folder = cwd.relative_to(root.resolve()).as_posix()
    for candidate in (entry, *_with_arguments(entry)):
        file = resolve_inside(root, posixpath.join(folder, candidate.text), "the task's entry point is")
        if candidate.text and file.is_file():
            break
    else:
        raise SourceError(
            f"the entry point {without_credentials(entry.text)!r} does not exist in folder "
            f"{PurePosixPath(layout.working_dir)} of {label}: was it committed and pushed?"
        )
    if entry.kind is EntryKind.PYTHON:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        fixed = changes.fix_future_imports(text)
        if fixed != text:
            file.write_text(fixed, encoding="utf-8", errors="surrogateescape")
    return candidate


def _with_arguments(entry: EntryPoint) -> Iterator[EntryPoint]:
    """``entry`` read as a file and its arguments, where it can be."""
    with suppress(ValueError):
        file, *arguments = shlex.split(entry.text)
        if arguments and not entry.arguments:
            yield replace(entry, text=file, arguments=tuple(arguments))
