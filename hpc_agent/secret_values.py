"""Credentials where no name gives them away: in the values of variables, and in the words of a command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpc_agent.redact import HIDDEN, KNOWN_TOKEN, is_secret, without_secrets

_IN_A_VALUE = re.compile(r"(?:password|passwd|pwd|secret|account_?key|access_?key|token)\s*=\s*[^\s;]", re.IGNORECASE)
"""``host=db password=x``, ``Server=…;Pwd=…``."""
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20})://(?P<rest>\S*)")
_HOST_AND_PORT = re.compile(r"[^/@:]*(?::[0-9]{1,5})?/")
_NAMED_VALUE = re.compile(r"(?P<name>[A-Za-z][\w-]*)(?P<between>\s*:\s*)\S")
"""``PRIVATE-TOKEN: x``, a header."""
_USER_OPTIONS = ("-u", "--user", "--proxy-user")
"""Of curl and its like: ``name:password``."""


def holds_credential(value: str) -> bool:
    """Whether the value of a variable shows by itself that it is a credential, or has one in it: an address with a
    password, a private key, a token of a well-known kind."""
    if "PRIVATE KEY-----" in value or KNOWN_TOKEN.search(value) or _IN_A_VALUE.search(value):
        return True
    return any(_has_password(match["scheme"], match["rest"]) for match in _URL.finditer(value))


def _has_password(scheme: str, rest: str) -> bool:
    """``ssh://git@host`` has none; a user alone, over HTTP, is a token."""
    user, at, _ = rest.rpartition("@")
    if not at or _HOST_AND_PORT.match(rest):
        return False
    return ":" in user or scheme.lower().endswith(("http", "https"))


def masked_words(words: Sequence[str]) -> list[str]:
    """A command line for people: no value of an option, variable or header with the name of a secret."""
    shown: list[str] = []
    before = ""
    for word in words:
        is_value = before.startswith("-") and "=" not in before and not word.startswith("-")
        is_header = before.endswith(":") and _is_secret_option(before[:-1])
        if is_header or (is_value and _is_secret_option(before)):
            shown.append(HIDDEN)
        elif is_value and before in _USER_OPTIONS and ":" in word:
            shown.append(f"{word.partition(':')[0]}:{HIDDEN}")
        else:
            shown.append(_masked(word))
        before = word
    return shown


def masked_text(text: str) -> str:
    """A line of shell, as ``masked_words``, its white space and quotes kept."""
    pieces = re.split(r"""([\s"']+)""", without_secrets(text))
    pieces[::2] = masked_words(pieces[::2])
    return "".join(pieces)


def _is_secret_option(word: str) -> bool:
    return is_secret(word.lstrip("-").replace("-", "_"))


def _masked(word: str) -> str:
    named = _NAMED_VALUE.match(word)
    if named and _is_secret_option(named["name"]):
        return f"{named['name']}{named['between']}{HIDDEN}"
    option, equals, value = word.partition("=")
    if equals and value and option.startswith("-") and _is_secret_option(option):
        return f"{option}={HIDDEN}"
    return without_secrets(word)
