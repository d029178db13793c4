"""Secrets: a type that does not print itself, and the removal of credentials from text meant for people."""

from __future__ import annotations

import re

_URL_CREDENTIALS = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@]+@")


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
