"""Layout of a task's code, and what runs, from its script section and what was staged; limits on that section. Pure.

See docs/internals/clearml-protocol.md#script-section and docs/internals/clearml-protocol.md#uncommitted-changes.
"""

from __future__ import annotations

import posixpath
from enum import Enum

import msgspec
from msgspec.structs import replace

from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import SourceError
from hpc_agent.sources import changes
from hpc_agent.sources.workspace import EntryKind, EntryPoint, entry_point_of, split_arguments


class LayoutPlan(msgspec.Struct, frozen=True):
    """Layout of a task's code. ``folder``: name of the root; ``working_dir``: relative to it; ``script_file``: file for
    the task's own text, relative to ``working_dir``, or empty without one."""

    folder: str
    working_dir: str
    entry: EntryPoint
    script_file: str = ""
    notes: tuple[str, ...] = ()

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders from which the task may have been created, relative to the root; the script's own first."""
        script = posixpath.dirname(split_arguments(self.entry.text)[0]) if self.entry.names_file else ""
        return tuple(dict.fromkeys((posixpath.normpath(posixpath.join(self.working_dir, script)), self.working_dir)))


def plan_layout(script: TaskScript, staged: StagedSource) -> LayoutPlan:
    """The layout for a task's script section and what was staged for it.

    Raises:
        SourceError: a path leaves the task's folder.
    """
    script, named = _split_script(script)
    is_patch = changes.is_patch(script.diff, of_repository=bool(script.repository.strip()))
    literal = bool(script.diff.strip()) and not is_patch
    entry = entry_point_of(script)
    written = literal and not script.repository.strip()
    if staged.origin is Origin.REPOSITORY or (staged.origin is Origin.FOLDER and not written):
        working_dir = relative(script.working_dir or ".", "working folder")
        file = _script_file(entry, named) if literal else ""
        if entry.names_file and not literal:
            relative(posixpath.join(working_dir, split_arguments(entry.text)[0]), "entry point")
        return LayoutPlan(staged.name, working_dir, _with_file(entry, file), file)
    notes: tuple[str, ...] = ()
    if script.working_dir.strip() not in ("", "."):
        notes = (f"the working folder {script.working_dir!r} is not used: the task has no repository",)
    if staged.origin is Origin.NOTHING:
        return LayoutPlan("code", ".", entry, notes=(*notes, "the task has neither a repository nor a script"))
    if is_patch:
        raise SourceError("the task has uncommitted changes but names no repository that they belong to")
    file = _script_file(entry, named)
    return LayoutPlan("code", ".", _with_file(entry, file), file, notes)


def _split_script(script: TaskScript) -> tuple[TaskScript, str]:
    """Split ``file:folder`` in the entry point, and ``folder:file`` in the working folder."""
    folder, _, named = script.working_dir.strip().partition(":")
    entry = script.entry_point.strip()
    if not script.working_dir.strip() and ":" in entry and not entry.startswith("-"):
        entry, _, folder = entry.partition(":")
    return msgspec.structs.replace(script, working_dir=folder.strip(), entry_point=entry.strip()), named.strip()


def _script_file(entry: EntryPoint, named: str) -> str:
    """The name under which the task's own text is written: in one folder, whatever path it once had."""
    shell = entry.kind in (EntryKind.SHELL, EntryKind.SHELL_COMMAND)
    name = posixpath.basename(split_arguments(entry.text)[0].replace("\\", "/") if entry.names_file else named)
    if name in (".", ".."):
        name = ""
    return name or ("untitled.sh" if shell else "untitled.py")


def _with_file(entry: EntryPoint, file: str) -> EntryPoint:
    """``entry`` with the file that was written, unless it names no file."""
    if not file or not entry.names_file:
        return entry
    return replace(entry, text=file, arguments=split_arguments(entry.text)[1])


def relative(path: str, what: str) -> str:
    """``path`` normalised.

    Raises:
        SourceError: it is absolute or climbs out.
    """
    normal = posixpath.normpath(path.strip() or ".")
    if normal.startswith(("/", "..")) or "\0" in normal:
        raise SourceError(f"the task's {what} {path!r} is outside of its repository")
    return normal


class Origin(Enum):
    REPOSITORY = "repository"
    SCRIPT = "script"
    """The task itself has the text of the script."""
    NOTHING = "nothing"
    """Neither: only a module or a command is named."""
    FOLDER = "folder"
    """An existing folder, set by the site (agent.force_code_dir)."""


class Submodule(msgspec.Struct, frozen=True):
    """Staged submodule. ``path``: relative to the top repository; ``mirror``: as in ``StagedSource``."""

    path: str
    mirror: str
    commit: str
    address: str


class StagedSource(msgspec.Struct, frozen=True):
    """Staged source of a task. ``commit``: full hash; ``mirror``: folder name in the cache's ``vcs``; ``repository``:
    an address without password. Of a folder ``name`` is the path.

    ``notes``: sentences about what will be missing in the checkout, for the task's log.
    """

    origin: Origin
    repository: str = ""
    mirror: str = ""
    name: str = ""
    commit: str = ""
    submodules: tuple[Submodule, ...] = ()
    notes: tuple[str, ...] = ()


MAX_FIELD_LENGTH = 4096
"""Characters of an address, a git name, a path or a command: Linux's limit for a path."""
MAX_DIFF_LENGTH = 8_000_000
"""Characters of the uncommitted changes: hpc-task sends up to 5 MB."""
MAX_LINES = 20_000
"""Lines of one list of packages."""
_MAX_LIST_LENGTH = 4_000_000

_FIELDS = ("repository", "branch", "tag", "commit", "entry_point", "working_dir", "binary")


def check_limits(script: TaskScript) -> None:
    """Check the lengths and characters of a task's script section.

    Raises:
        SourceError: a field is longer than the limit, or has characters that no file, address or program can have.
    """
    for name in _FIELDS:
        value: str = getattr(script, name)
        field = name.replace("_", " ")
        if len(value) > MAX_FIELD_LENGTH:
            raise SourceError(f"the task's {field} has {len(value)} characters; {MAX_FIELD_LENGTH} are allowed")
        if "\0" in value:
            raise SourceError(f"the task's {field} {value[:200]!r} contains a NUL character")
        _check_text(field, value)
    if len(script.diff) > MAX_DIFF_LENGTH:
        raise SourceError(
            f"the task's uncommitted changes have {len(script.diff)} characters; {MAX_DIFF_LENGTH} are allowed: commit "
            "and push them"
        )
    _check_text("uncommitted changes", script.diff)
    lists = (script.requirements.pip, script.requirements.org_pip, script.requirements.conda)
    for lines in filter(None, lists):
        if len(lines) > MAX_LINES or sum(map(len, lines)) > _MAX_LIST_LENGTH:
            raise SourceError(f"the task's list of packages has {len(lines)} lines, more than the limit")
        for line in lines:
            _check_text("list of packages", line)


def _check_text(what: str, value: str) -> None:
    """JSON can contain halves of surrogate pairs, which cannot be encoded."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"the task's {what} cannot be written as UTF-8: {error.reason}") from error
