"""Remote of a repository: the address that a task names, rewritten as configured, without its credentials.

Pure. The rules are those of docs/internals/clearml-protocol.md#repository-addresses. An address never keeps a password:
git gets it another way (``git.py``).
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Collection
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import msgspec

from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.errors import SourceError
from hpc_agent.redact import Secret, without_credentials

_HTTP = ("http", "https")
_SSH = ("ssh", "git+ssh", "ssh+git")
_SCHEMES = (*_HTTP, *_SSH, "file")
_SSH_WITH_COLON = re.compile(
    r"(?:ssh|git\+ssh|ssh\+git)://(?P<user>[^@/:\s]+@)?(?P<host>[^@/:\s]+):(?P<path>[A-Za-z_~].*)"
)
MAX_LENGTH = 4096
"""Characters of an address: those of real repositories have a hundred or two."""
_SCP = re.compile(r"^(?:(?P<user>[^@/:\s]+)@)?(?P<host>[^@/:\s]+):(?P<path>[^:].*)$")
_TRANSPORT = re.compile(r"^[A-Za-z0-9]+::")
_NOTHING = Secret("")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


class Remote(msgspec.Struct, frozen=True):
    """Remote repository. ``url`` has no password; ``user`` and ``password``: for http and https only. Without one the
    user may be a token, which is a secret too."""

    url: str
    user: str = ""
    password: Secret = _NOTHING
    withheld: bool = False
    """The configured password is not sent to this address."""

    @property
    def name(self) -> str:
        """The repository's own name, as a folder name: ``lab/model.git`` → ``model``."""
        path = self.url if "://" not in self.url else urlsplit(self.url).path
        last = re.split(r"[/:]", path.rstrip("/"))[-1].removesuffix(".git")
        return re.sub(r"[^A-Za-z0-9._+-]", "_", last).lstrip(".-") or "repository"

    @property
    def folder(self) -> str:
        """Name of its mirror: one per address, independent of user and credentials."""
        return f"{self.name}.{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"

    @property
    def origin(self) -> str:
        """Origin (``https://host:port``), the only one that may get the credentials."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


def resolve(repository: str, git: GitSettings, known: Collection[str] = ()) -> Remote:
    """The remote for a task's ``script.repository`` under these settings.

    ``known``: hosts that may get the configured password if ``git_host`` is not set.

    Raises:
        SourceError: it is not the address of a repository, or git could take it for an option or a program to run.
    """
    text = repository.strip()
    if len(text) > MAX_LENGTH:
        raise SourceError(f"the repository's address has {len(text)} characters; {MAX_LENGTH} are allowed")
    redacted = _shortened(without_credentials(text))
    if text.startswith("-") or _TRANSPORT.match(text) or _UNPRINTABLE.search(text):
        raise SourceError(f"repository {redacted!r} is refused: it is not a plain address of a git repository")
    if "://" in text:
        return _from_text(_as_ssh_path(text), redacted, _PasswordRules(git, frozenset(known)))
    if scp := _SCP.match(text):
        if scp["host"].startswith("-"):
            raise SourceError(f"repository {redacted!r} is refused: it is not a plain address of a git repository")
        return _from_ssh(scp["user"] or "", scp["host"], None, scp["path"], text, _PasswordRules(git, frozenset(known)))
    if text.startswith("/"):
        return Remote(posixpath.normpath(text))
    raise SourceError(
        f"repository {redacted!r} is neither an address nor an absolute path: nothing can be fetched from it"
    )


def _shortened(text: str) -> str:
    return f"{text[:200]} …" if len(text) > 200 else text


class _PasswordRules(msgspec.Struct, frozen=True):
    """Hosts that may get the configured credentials."""

    git: GitSettings
    known: frozenset[str]

    def serves(self, host: str) -> bool:
        """Whether ``git_host`` means this host, or there is none."""
        return not self.git.host or self.names(host)

    def names(self, host: str, port: int | None = None) -> bool:
        return self.git.host.lower() in (host.lower(), f"{host.lower()}:{port}")

    def may_see_password(self, scheme: str, host: str, port: int | None) -> bool:
        """A task may name any host: without ``git_host`` only those count that the account's own git knows, and a
        password goes unencrypted only to the host that a user named for it."""
        if self.git.host:
            return self.names(host, port)
        return scheme == "https" and host.lower() in self.known


def _from_text(text: str, redacted: str, rules: _PasswordRules) -> Remote:
    try:
        parts = urlsplit(text)
        scheme, host, _ = parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError as error:
        # Python's own message may quote a part of a password.
        raise SourceError(
            f"repository {redacted!r} is refused: it is not an address; between host and path only a port is allowed, "
            "as in ssh://git@host:22/group/repository.git"
        ) from error
    if scheme == "git":
        raise SourceError(
            f"repository {redacted!r} is refused: git:// is neither encrypted nor authenticated; set the task's "
            "repository to the https or ssh address of the same repository"
        )
    if scheme not in _SCHEMES or host.startswith("-"):
        raise SourceError(f"repository {redacted!r} is refused: use an https, http, ssh or file address")
    return _from_url(parts, rules)


def _as_ssh_path(text: str) -> str:
    """Address with ``ssh://git@host:group/repository`` (as pasted from GitLab) read as
    ``git@host:group/repository``."""
    match = _SSH_WITH_COLON.fullmatch(text)
    return f"ssh://{match['user'] or ''}{match['host']}/{match['path']}" if match else text


def host_of(address: str) -> str:
    """The host of a URL, in lower case; empty if it has none."""
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _from_url(parts: SplitResult, rules: _PasswordRules) -> Remote:
    git = rules.git
    host = (parts.hostname or "").lower()
    if parts.scheme in _SSH:
        return _from_ssh(parts.username or "", host, parts.port, parts.path.lstrip("/"), urlunsplit(parts), rules)
    if parts.scheme not in _HTTP:
        return Remote(urlunsplit(parts))
    if git.force_ssh and rules.serves(host):
        return Remote(_ssh_url(git.ssh_user or "git", host, git.ssh_port, parts.path))
    clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    trusted = rules.may_see_password(parts.scheme, host, parts.port)
    if parts.username or parts.password:
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if not password and git.password and git.user in ("", user) and trusted:
            password = git.password.reveal()
        return Remote(clean, user, Secret(password))
    return _with_credentials(clean, rules, trusted=trusted)


def _from_ssh(user: str, host: str, port: int | None, path: str, text: str, rules: _PasswordRules) -> Remote:
    git = rules.git
    if git.force_ssh:
        if git.ssh_user or git.ssh_port:
            return Remote(_ssh_url(git.ssh_user or user or "git", host, git.ssh_port or port, path))
        return Remote(text)
    if git.translate_ssh and git.user and git.password and rules.may_see_password("https", host, None):
        # The port of ssh is not that of https.
        return _with_credentials(f"https://{host}/{path.lstrip('/')}", rules, trusted=True)
    return Remote(text)


def _ssh_url(user: str, host: str, port: int | None, path: str) -> str:
    return f"ssh://{user}@{host}{f':{port}' if port else ''}/{path.lstrip('/')}"


def _with_credentials(url: str, rules: _PasswordRules, *, trusted: bool) -> Remote:
    git = rules.git
    if not git.password:
        return Remote(url)
    if not trusted:
        return Remote(url, withheld=True)
    # With a token any user name will do, but none will not.
    return Remote(url, git.user or "git", git.password)


def submodule_address(parent: str, address: str) -> str:
    """The address of a submodule; ``./x`` and ``../x`` are relative to the repository that names it."""
    if not address.startswith(("./", "../")):
        return address
    scp = None if "://" in parent else _SCP.match(parent)
    if scp:
        prefix = parent[: -len(scp["path"])]
        return prefix + posixpath.normpath(posixpath.join(scp["path"], address))
    parts = urlsplit(parent)
    return urlunsplit(parts._replace(path=posixpath.normpath(posixpath.join(parts.path, address))))
