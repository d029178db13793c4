"""Where a task's files lie and what runs, from its script section alone. Pure.

See docs/internals/clearml-protocol.md#script-section and docs/internals/clearml-protocol.md#uncommitted-changes.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace

from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.sources import changes
from hpc_agent.sources.staged import Origin, StagedSource
from hpc_agent.sources.workspace import EntryKind, EntryPoint, entry_of, parted


@dataclass(frozen=True)
class LayoutPlan:
    """``folder``: name of the root; ``working_dir`` relative to it; ``script_file``: where the task's own text goes,
    relative to ``working_dir``, or empty if there is none."""

    folder: str
    working_dir: str
    entry: EntryPoint
    script_file: str = ""
    notes: tuple[str, ...] = ()

    @property
    def folders(self) -> tuple[str, ...]:
        """From where the task may have been made, relative to the root: the script's own folder first."""
        script = posixpath.dirname(parted(self.entry.text)[0]) if self.entry.names_file else ""
        return tuple(dict.fromkeys((posixpath.normpath(posixpath.join(self.working_dir, script)), self.working_dir)))


def plan(script: TaskScript, staged: StagedSource) -> LayoutPlan:
    """
    Raises:
        SourceError: a path leaves the task's folder.
    """
    script, named = _split(script)
    patch = changes.is_patch(script.diff, of_repository=bool(script.repository.strip()))
    literal = bool(script.diff.strip()) and not patch
    entry = entry_of(script)
    written = literal and not script.repository.strip()
    if staged.origin is Origin.REPOSITORY or (staged.origin is Origin.FOLDER and not written):
        working_dir = relative(script.working_dir or ".", "working folder")
        file = _script_file(entry, named) if literal else ""
        if entry.names_file and not literal:
            relative(posixpath.join(working_dir, parted(entry.text)[0]), "entry point")
        return LayoutPlan(staged.name, working_dir, _at(entry, file), file)
    notes: tuple[str, ...] = ()
    if script.working_dir.strip() not in ("", "."):
        notes = (f"the working folder {script.working_dir!r} is not used: the task has no repository",)
    if staged.origin is Origin.NOTHING:
        return LayoutPlan("code", ".", entry, notes=(*notes, "the task has neither a repository nor a script"))
    if patch:
        raise SourceError("the task has uncommitted changes but names no repository that they belong to")
    file = _script_file(entry, named)
    return LayoutPlan("code", ".", _at(entry, file), file, notes)


def _split(script: TaskScript) -> tuple[TaskScript, str]:
    """``file:folder`` in the entry point, and ``folder:file`` in the working folder, taken apart."""
    folder, _, named = script.working_dir.strip().partition(":")
    entry = script.entry_point.strip()
    if not script.working_dir.strip() and ":" in entry and not entry.startswith("-"):
        entry, _, folder = entry.partition(":")
    return replace(script, working_dir=folder.strip(), entry_point=entry.strip()), named.strip()


def _script_file(entry: EntryPoint, named: str) -> str:
    """The name under which the task's own text is written: in one folder, whatever path it once had."""
    shell = entry.kind in (EntryKind.SHELL, EntryKind.SHELL_COMMAND)
    name = posixpath.basename(parted(entry.text)[0].replace("\\", "/") if entry.names_file else named)
    if name in (".", ".."):
        name = ""
    return name or ("untitled.sh" if shell else "untitled.py")


def _at(entry: EntryPoint, file: str) -> EntryPoint:
    """``entry`` with the file that was written, unless it names no file."""
    if not file or not entry.names_file:
        return entry
    return replace(entry, text=file, arguments=parted(entry.text)[1])


def relative(path: str, what: str) -> str:
    """``path`` normalised.

    Raises:
        SourceError: it is absolute or climbs out.
    """
    normal = posixpath.normpath(path.strip() or ".")
    if normal.startswith(("/", "..")) or "\0" in normal:
        raise SourceError(f"the task's {what} {path!r} is outside of its repository")
    return normal
