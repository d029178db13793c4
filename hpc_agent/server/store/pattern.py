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
"""Characters of a field that are searched, with a short pattern: the rest of a longer one is not looked at."""


MOST_STEPS = 20_000_000
"""Of one search: states of the automaton times characters, a quarter of a second. Most patterns have a few states for
each of their characters; ``a[ab]{900}c`` has 900 in all, and goes through them at each character of the text."""


class _Compiled(Protocol):
    @property
    def programsize(self) -> int: ...

    def search(self, text: str) -> object: ...


class PatternError(ValueError):
    """A pattern that this server cannot search with, and why."""


@lru_cache(maxsize=256)
def compiled(pattern: str) -> _Compiled:
    """
    Raises:
        PatternError: not a regular expression, too long, or in need of what RE2 does not have.
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
    automaton = compiled(pattern)
    longest = min(LONGEST_TEXT, MOST_STEPS // automaton.programsize)
    return automaton.search(text[:longest]) is not None


def escape(text: str) -> str:
    """The pattern that matches this text alone."""
    return re.escape(text)


def _reason(error: re2.error) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
