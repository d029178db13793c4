"""Secrets: a type that does not print itself, and the removal of credentials from text meant for people."""

from __future__ import annotations

import re

_URL_CREDENTIALS = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@]+@")
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|ACCESS_?KEY|API_?KEY|(^|_)PASS(_|$)"
    r"|TOKEN$|(^|_)(PAT|CREDENTIALS?|KEY|CONNECTION_STRING)$",
    re.IGNORECASE,
)
_NAMES_A_FILE = re.compile(r"_(FILE|PATH|DIR)$|^GOOGLE_APPLICATION_CREDENTIALS$")
_ASSIGNMENT = re.compile(r"(?P<name>\b[A-Za-z_]\w*)=(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;&\"']+)")

HIDDEN = "********"


class Secret(str):
    """Text that shows as ``********``. ``reveal()`` gives the value, at the one place that sends it."""

    __slots__ = ()

    def reveal(self) -> str:
        return str.__str__(self)

    def __repr__(self) -> str:
        return f"Secret({HIDDEN!r})" if len(self) else "Secret('')"

    def __str__(self) -> str:
        return HIDDEN if len(self) else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def without_credentials(text: str) -> str:
    """``text`` with ``user:password@`` cut out of every URL in it."""
    return _URL_CREDENTIALS.sub(r"\g<scheme>", text)


def is_secret(name: str) -> bool:
    """Whether a variable or setting of this name usually holds a credential."""
    return bool(_SECRET_NAME.search(name)) and not _NAMES_A_FILE.search(name)


def without_secrets(text: str) -> str:
    """As ``without_credentials``, and the value of each ``NAME=value`` with the name of a secret is hidden."""

    def hidden(match: re.Match[str]) -> str:
        return f"{match['name']}={HIDDEN}" if is_secret(match["name"]) else match[0]

    return _ASSIGNMENT.sub(hidden, without_credentials(text))
