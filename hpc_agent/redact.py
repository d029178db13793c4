"""Secrets: a type that does not print itself, and the removal of credentials from text meant for people."""

from __future__ import annotations

import re
from collections.abc import Callable

# No scheme begins in the middle of a word, and none is long: each character of a text is looked at once.
_SCHEME = re.compile(r"(?<![a-zA-Z0-9+.-])[a-zA-Z][a-zA-Z0-9+.-]{0,20}://")
_ADDRESS_END = re.compile(r"\s")
_AUTHORITY_END = re.compile(r"[/?#]")
_PLAIN_HOST = re.compile(r"(?:[\w.-]*\.[\w.-]*|localhost|[\w-]+(?=:\d)|\[[0-9a-fA-F:.]*\])(?::\d{0,5})?")
_HOST_AND_PORT = re.compile(r"[^:@]*(?::\d{0,5})?|\[[0-9a-fA-F:.]*\](?::\d{0,5})?")
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|PASSCODE|SECRET|ACCESS_?KEY|API_?KEY|PRIVATE_?KEY|WEBHOOK|BEARER|(^|_)PASS(_|$)"
    r"|(?<!BY)(?<!COM)(?<!ASK)PASS$|.PWD$|PW$|(^|_)OTP$|TOKEN$|(API|AUTH|ACCESS|REFRESH)_TOKENS$"
    r"|_TOKEN_(?!LEN|LIMIT|COUNT|SIZE|NUM|MAX|BUDGET|TYPE|TTL|EXPIR|URL)"
    r"|(^|_)(O?AUTH|AUTHORIZATION|DSN|JWT|COOKIES?|CREDS?)(_|$)"
    r"|(^|_)(PAT|SAS|CREDENTIALS?|KEY|CONNECTION_STRING|CONN_STR)$",
    re.IGNORECASE,
)
_HARMLESS_NAME = re.compile(
    r"^OLDPWD$|_(FILE|PATH|DIR)$|^GOOGLE_APPLICATION_CREDENTIALS$"
    r"|AUTH_(SOCK|TYPE|METHOD|MODE|URL|URI|HOST|PORT|PLUGIN|ENABLED|REQUIRED|VERSION|PROVIDER)$",
    re.IGNORECASE,
)
"""Where a secret lies, or how one is asked for."""
_HEADER = re.compile(
    r"(?P<kind>\b(?:Bearer|Basic)\s+(?=[A-Za-z0-9._~+/=-]{6})|Authorization\s*[:=]\\?\s*(?:[A-Za-z-]{1,20}\\?\s+)?)"
    r"[^\s\"',;&*\\]+",
    re.IGNORECASE,
)
_SIGNED = re.compile(r"(?P<name>[?&;]\s*(?:(?:X-(?:Amz|Goog)-)?Signature|sig|pwd)=)[^\s&;\"']+", re.IGNORECASE)
"""What gives access in an address, or in the description of a database."""
KNOWN_TOKEN = re.compile(
    # GitHub, GitLab, Hugging Face, OpenAI and others, Slack, PyPI, npm, Stripe, DigitalOcean, Docker, Linear and more.
    r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abprs]-|xapp-|pypi-|npm_|[sr]k_live_|[sr]k_test_|dop_v1_|dckr_pat_"
    r"|lin_api_|r8_)[A-Za-z0-9_-]{10,}"
    # AWS, Google, SendGrid, Vault, Telegram; a signed JSON token; addresses that are a secret as a whole.
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9_-]{10,}"
    r"|\bSG\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}|\bhvs\.[A-Za-z0-9_-]{10,}|\b[0-9]{8,12}:AA[A-Za-z0-9_-]{30,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r"|\bhooks\.slack\.com/services/[A-Za-z0-9/_-]+|\bdiscord(?:app)?\.com/api/webhooks/[A-Za-z0-9/_-]+"
)
_NAME_OF_VALUE = re.compile(r"(?<![\w-])(?P<name>[\w-]+)(?:=|[\"']\s*:\s*)")
"""``NAME=`` and ``"name": ``."""
_VALUE = re.compile(r"(?:\\\n)?(?:\$?\"[^\"]*\"|\$?'[^']*')?[^\s,;&\"']*")

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
    """``text`` with ``user:password@`` cut out of every URL in it, for people.

    People put passwords with ``/`` and ``@`` into addresses as they are. Where it is not clear what belongs to the
    password, more is cut out rather than less: do not tell addresses apart by the result, see ``without_user_info``.
    """
    return _addresses_replaced(text, _without_password)


def without_user_info(text: str) -> str:
    """``text`` with what RFC 3986 calls the user information cut out of every URL in it, and nothing else."""
    return _addresses_replaced(text, lambda address: address[_user_info_length(address) :])


def _addresses_replaced(text: str, replace: Callable[[str], str]) -> str:
    """``text`` with what follows each ``scheme://``, up to white space or the next one, replaced."""
    parts: list[str] = []
    done = 0
    schemes = [(match.start(), match.end()) for match in _SCHEME.finditer(text)]
    for number, (_, begin) in enumerate(schemes):
        limit = schemes[number + 1][0] if number + 1 < len(schemes) else len(text)
        space = _ADDRESS_END.search(text, begin, limit)
        end = space.start() if space else limit
        parts += [text[done:begin], replace(text[begin:end])]
        done = end
    return "".join([*parts, text[done:]])


def _user_info_length(address: str) -> int:
    slash = _AUTHORITY_END.search(address)
    return address.rfind("@", 0, slash.start() if slash else len(address)) + 1


def _without_password(address: str) -> str:
    """An address, its scheme cut off, from its host on."""
    rest = address[_user_info_length(address) :]
    last = rest.rfind("@")
    slash = _AUTHORITY_END.search(rest)
    authority = rest[: slash.start()] if slash else rest
    if last < 0:
        return rest
    # ``host/path@revision`` is an address of a repository. ``user:pa/ss@host`` names no port, and of
    # ``user:p@s/s@host`` the ``s`` is hardly a host: the rest of a password.
    known = _PLAIN_HOST if len(rest) < len(address) else _HOST_AND_PORT
    return rest if known.fullmatch(authority) else rest[last + 1 :]


def is_secret(name: str) -> bool:
    """Whether a variable or setting of this name usually holds a credential."""
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def without_secrets(text: str) -> str:
    """As ``without_credentials``, and hidden are the value of each ``NAME=value`` with the name of a secret, what
    follows ``Bearer``, ``Basic`` or ``Authorization:``, signatures in addresses, and what has the form of a well-known
    kind of token."""
    shown: list[str] = []
    done = 0
    without = without_credentials(text)
    for found in _NAME_OF_VALUE.finditer(without):
        if found.start() < done or not is_secret(found["name"].lstrip("-").replace("-", "_")):
            continue
        value = _VALUE.match(without, found.end())
        if value and value[0]:
            shown += [without[done : found.end()], HIDDEN]
            done = value.end()
    shown.append(without[done:])
    without = _SIGNED.sub(rf"\g<name>{HIDDEN}", KNOWN_TOKEN.sub(HIDDEN, "".join(shown)))
    return _HEADER.sub(rf"\g<kind>{HIDDEN}", without)
