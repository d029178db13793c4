"""Bounds on what a task may say about its source, checked before anything reads it. Pure.

A server takes 32 MB for one field. What parses a field need then be right, but not quick for any length.
"""

from __future__ import annotations

from hpc_agent.domain.task import TaskScript
from hpc_agent.errors import SourceError

LONGEST_FIELD = 4096
"""Characters of an address, a name of git's, a path or a command: as long as a path may be on Linux."""
LARGEST_DIFF = 8_000_000
"""Characters of the uncommitted changes: hpc-task sends up to 5 MB."""
MOST_LINES = 20_000
"""Lines of one list of packages."""
_LARGEST_LIST = 4_000_000

_FIELDS = ("repository", "branch", "tag", "commit", "entry_point", "working_dir", "binary")


def check(script: TaskScript) -> None:
    """
    Raises:
        SourceError: a field is longer than any that can be meant, or holds what no file, address or program can.
    """
    for name in _FIELDS:
        value: str = getattr(script, name)
        said = name.replace("_", " ")
        if len(value) > LONGEST_FIELD:
            raise SourceError(f"the task's {said} has {len(value)} characters; {LONGEST_FIELD} are allowed")
        if "\0" in value:
            raise SourceError(f"the task's {said} {value[:200]!r} holds a NUL character, which no name can")
        _check_text(said, value)
    if len(script.diff) > LARGEST_DIFF:
        raise SourceError(
            f"the task's uncommitted changes have {len(script.diff)} characters; {LARGEST_DIFF} are allowed: commit "
            "and push them"
        )
    _check_text("uncommitted changes", script.diff)
    lists = (script.requirements.pip, script.requirements.org_pip, script.requirements.conda)
    for lines in filter(None, lists):
        if len(lines) > MOST_LINES or sum(map(len, lines)) > _LARGEST_LIST:
            raise SourceError(f"the task's list of packages has {len(lines)} lines, too many to be meant")
        for line in lines:
            _check_text("list of packages", line)


def _check_text(what: str, value: str) -> None:
    """JSON can carry halves of surrogate pairs, which are no text."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"the task's {what} cannot be written as UTF-8: {error.reason}") from error
