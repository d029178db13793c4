"""Text that a program keeps in a person's file: written again without losing the person's edits.

What the program wrote last is kept next to the file, so that the next time it can tell its own lines from edits.
"""

from __future__ import annotations

import contextlib
import difflib
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpc_agent.errors import ConfigError, InputError
from hpc_agent.file_records import ensure_directory, write_atomic
from hpc_agent.setup.three_way_merge import merge

BEGIN = "# >>> hpc-agent init >>>"
END = "# <<< hpc-agent init <<<"
_NOTE = ("# Edit freely: the next `hpc-agent init` keeps what you changed, and updates the lines that you did not.",)


class Change(msgspec.Struct, frozen=True):
    """What is to be written to one file."""

    path: Path
    """Of the file itself, where a link was named."""
    before: str | None
    """None: there is no such file."""
    after: str
    written: tuple[str, ...]
    """The lines as the program would have them, for the next time."""
    lines_before: tuple[str, ...]
    lines_after: tuple[str, ...]
    """Those that the program keeps, as they are in the file."""
    set_aside: tuple[tuple[str, ...], ...] = ()
    """New lines that were not taken because the person has changed the same place."""
    unknown_edits: bool = False
    """The lines were kept as they are: there is no record of what the program wrote."""

    @property
    def is_one(self) -> bool:
        return self.before != self.after

    def difference(self) -> str:
        """Unified, of the program's own lines; the rest of the file may hold secrets."""
        lines = difflib.unified_diff(self.lines_before, self.lines_after, "now", "then", lineterm="", n=2)
        return "\n".join(lines)


def in_section(path: Path, lines: Sequence[str]) -> Change:
    """``lines`` between two markers of a file that holds other things too; at its end where they are not there yet.

    Raises:
        ConfigError: the markers are not one pair.
    """
    path = path.resolve()
    before = _read(path)
    head, mine, tail = _parts(path, before or "")
    change = _merged(path, before, mine, (*_NOTE, *lines))
    if head and mine is None:
        head = head.rstrip("\n") + "\n\n"
    middle = "\n".join((BEGIN, *change.lines_after, END))
    return _with_text(change, f"{head}{middle}\n{tail}")


def whole_file(path: Path, lines: Sequence[str]) -> Change:
    """``lines`` as all of a file."""
    path = path.resolve()
    before = _read(path)
    change = _merged(path, before, None if before is None else tuple(before.splitlines()), lines)
    return _with_text(change, "\n".join(change.lines_after) + "\n")


def last_written(path: Path) -> str:
    """What the program wrote to the file last; empty where that is not known."""
    return _read(_record(path.resolve())) or ""


def without_section(path: Path) -> str:
    """The rest of a file; empty where there is none.

    Raises:
        ConfigError: as ``in_section``.
    """
    head, _, tail = _parts(path, _read(path.resolve()) or "")
    return f"{head}{tail}"


def write(change: Change, *, mode: int = 0o600) -> None:
    """A file that was there keeps its mode; ``mode``: of a new one.

    Raises:
        InputError: the file is not as it was when the change was made: an editor or another program has written it.
    """
    if _read(change.path) != change.before:
        raise InputError(f"{change.path} was changed by another program meanwhile and stays as it is; try again")
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(change.path.stat().st_mode)
    ensure_directory(change.path.parent)
    if change.is_one:
        write_atomic(change.path, change.after.encode("utf-8", "surrogateescape"), mode=mode)
        change.path.chmod(mode)
    write_atomic(_record(change.path), "\n".join((*change.written, "")).encode(), mode=mode)


def _merged(path: Path, before: str | None, mine: tuple[str, ...] | None, lines: Sequence[str]) -> Change:
    new = tuple(lines)
    if mine is None:
        return Change(path, before, "", new, (), new)
    base = _read(_record(path))
    if base is None:
        return Change(path, before, "", new, mine, mine, unknown_edits=mine != new)
    merged = merge(base.splitlines(), mine, new)
    return Change(path, before, "", new, mine, merged.lines, merged.set_aside)


def _with_text(change: Change, after: str) -> Change:
    return msgspec.structs.replace(change, after=after)


def _read(path: Path) -> str | None:
    """Bytes that are not UTF-8 are kept as they are."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.hpc-agent-init")


def _parts(path: Path, text: str) -> tuple[str, tuple[str, ...] | None, str]:
    """What is before the section, its lines without the markers, what is after it. None: there is no section."""
    lines = text.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.strip() == BEGIN]
    ends = [number for number, line in enumerate(lines) if line.strip() == END]
    if not begins and not ends:
        return text, None, ""
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise ConfigError(
            f'{path} has {len(begins)} lines "{BEGIN}" and {len(ends)} lines "{END}", expected one of each, in this '
            "order: correct them, or delete the section to have it written again"
        )
    inner = tuple(line.rstrip("\r\n") for line in lines[begins[0] + 1 : ends[0]])
    return "".join(lines[: begins[0]]), inner, "".join(lines[ends[0] + 1 :])
