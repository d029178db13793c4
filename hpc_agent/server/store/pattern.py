"""Regular expressions that clients send, searched in time that grows with the text only.

Python's own engine backtracks: ``(a+)+$`` on a task's name keeps it, and with it the whole process, busy for hours. RE2
compiles a pattern to an automaton; what an automaton cannot do (look-around, back-references) it refuses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Protocol

import re2

LONGEST_PATTERN = 4000
LONGEST_TEXT = 1_000_000
"""Characters of a field that are searched: the rest of a longer one is not looked at."""


class _Compiled(Protocol):
    def search(self, text: str) -> object: ...


class PatternError(ValueError):
    """The pattern is not one that this server can search with; the text says why."""


@lru_cache(maxsize=256)
def compiled(pattern: str) -> _Compiled:
    """
    Raises:
        PatternError: it is no regular expression, is too long, or needs what RE2 does not have.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise PatternError(f"a pattern may have {LONGEST_PATTERN} characters, this one has {len(pattern)}")
    options = re2.Options()
    options.case_sensitive = False
    options.never_capture = True
    options.log_errors = False
    try:
        found: _Compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise PatternError(f"not a regular expression that RE2 understands ({_reason(error)})") from None
    return found


def search(pattern: str, text: str) -> bool:
    """Whether the pattern matches anywhere in the text, upper and lower case alike."""
    return compiled(pattern).search(text[:LONGEST_TEXT]) is not None


def escape(text: str) -> str:
    """The pattern that matches this text alone."""
    return re.escape(text)


def _reason(error: re2.error) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
