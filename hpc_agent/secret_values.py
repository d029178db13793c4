"""Detection of credentials by value: in variables, and on command lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpc_agent.redact import HIDDEN, KNOWN_TOKEN, is_secret, without_secrets

_IN_A_VALUE = re.compile(
    r"(?:passw(?:or)?d|passphrase|pwd|secret|(?:account|access|api|private)[_-]?key|token|authorization)"
    r"[\"']?\s*[=:]\s*[\"']?[^\s;\"']"
    r"|\"auth\"\s*:\s*\"[^\"]|(?:(?:^|[?&;])sig|Signature)=[^\s&;]"
    r"|\blogin\s+\S+\s+password\s+\S|^\s*Bearer\s+\S{6,}\s*$",
    re.IGNORECASE,
)
"""``host=db password=x``, ``Server=…;Pwd=…``, ``{"password": "x"}``, a header, a signed address, a line of a netrc."""
_USER_AT_HOST = re.compile(r"[^\s:/@=]+:[^\s/@]+@(?!sha[0-9]+:)[\w.-]+(?:[:/]\S*)?")
"""``name:password@host``: an address without a scheme, and no image with its digest."""
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20})://(?P<rest>\S*)")
_HOST_BEFORE_PATH = re.compile(r"[^/@:]*(?::[0-9]{1,5})?/")
_NAMED_VALUE = re.compile(r"(?P<name>[-/]{0,2}[A-Za-z][\w-]*)(?P<between>\s*:\s*)\S")
"""``PRIVATE-TOKEN: x``, a header; ``/password:x``."""
_USER_OPTIONS = ("-u", "--user", "--proxy-user", "--login")
"""Of curl and its like: ``name:password``."""
_ATTACHED_USER = re.compile(r"(?P<user>-u[^\s:/=-][^\s:/=]*):.+")
_ASKS_WITH_P = frozenset({"sshpass", "mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump", "login"})
"""``-p`` is a password there; ``login`` as in ``docker login``."""
_LONG = 20
"""Characters: what is given to ``login`` and has as many is a key, and no host or name."""


def holds_credential(value: str) -> bool:
    """Whether the value of a variable shows by itself that it is a credential, or has one in it: an address with a
    password, a private key, a token of a well-known kind."""
    if "PRIVATE KEY-----" in value or KNOWN_TOKEN.search(value) or _IN_A_VALUE.search(value):
        return True
    if _USER_AT_HOST.fullmatch(value):
        return True
    return any(_has_password(match["scheme"], match["rest"]) for match in _URL.finditer(value))


def _has_password(scheme: str, rest: str) -> bool:
    """``ssh://git@host`` has none; a user alone, over HTTP, is a token."""
    user, at, _ = rest.rpartition("@")
    if not at or _HOST_BEFORE_PATH.match(rest):
        return False
    return ":" in user or scheme.lower().endswith(("http", "https"))


def masked_words(words: Sequence[str]) -> list[str]:
    """A command line for people: no value of an option, variable or header with the name of a secret."""
    shown: list[str] = []
    before = ""
    asks_with_p = False
    for word in words:
        if _is_hidden(word, before) or (asks_with_p and before == "-p"):
            shown.append(HIDDEN)
        elif asks_with_p and word.startswith("-p") and len(word) > len("-p"):
            shown.append(f"-p{HIDDEN}")
        elif before in _USER_OPTIONS and ":" in word:
            shown.append(f"{word.partition(':')[0]}:{HIDDEN}")
        else:
            shown.append(_masked(word))
        asks_with_p = asks_with_p or word.rpartition("/")[2] in _ASKS_WITH_P
        before = word
    return shown


def _is_hidden(word: str, before: str) -> bool:
    """Whether it is the value of the option before it."""
    if before.endswith(":") and _is_secret_option(before[:-1]):
        return True
    if before == "login" and len(word) >= _LONG and not re.search(r"[./]", word):
        return True
    is_value = before.startswith("-") and "=" not in before and not word.startswith("--")
    return is_value and _is_secret_option(before)


def masked_text(text: str) -> str:
    """A line of shell, as ``masked_words``, its white space and quotes kept."""
    pieces = re.split(r"""((?:\\\n|[\s"'])+)""", without_secrets(text))
    pieces[::2] = masked_words(pieces[::2])
    return "".join(pieces)


def _is_secret_option(word: str) -> bool:
    # ``PWD`` is a folder, ``--pwd`` is not.
    return is_secret("_" + word.lstrip("-/").replace("-", "_"))


def _masked(word: str) -> str:
    named = _NAMED_VALUE.match(word)
    if named and _is_secret_option(named["name"]):
        return f"{named['name']}{named['between']}{HIDDEN}"
    option, equals, value = word.partition("=")
    if equals and value and option.startswith("-") and _is_secret_option(option):
        return f"{option}={HIDDEN}"
    if equals and option in _USER_OPTIONS and ":" in value:
        return f"{option}={value.partition(':')[0]}:{HIDDEN}"
    if attached := _ATTACHED_USER.fullmatch(word):
        return f"{attached['user']}:{HIDDEN}"
    if _USER_AT_HOST.fullmatch(word):
        return f"{HIDDEN}@{word.rpartition('@')[2]}"
    return without_secrets(word)
