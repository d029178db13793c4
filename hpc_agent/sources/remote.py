"""Where a repository is fetched from: the address a task names, rewritten as configured, its credentials set apart.

Pure. The rules are those of wire.md 4.6. An address never keeps a password: git gets it another way (``git.py``).
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from hpc_agent.config.settings import GitSettings
from hpc_agent.errors import SourceError
from hpc_agent.redact import Secret, without_credentials

_HTTP = ("http", "https")
_SSH = ("ssh", "git+ssh", "ssh+git")
_SCHEMES = (*_HTTP, *_SSH, "git", "file")
_SCP = re.compile(r"^(?:(?P<user>[^@/:\s]+)@)?(?P<host>[^@/:\s]+):(?P<path>[^:].*)$")
_TRANSPORT = re.compile(r"^[A-Za-z0-9]+::")
_NOTHING = Secret("")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True)
class Remote:
    """``url`` is free of passwords; ``user`` and ``password`` are for http and https only. Without a password the
    user may be a token, which is a secret too."""

    url: str
    user: str = ""
    password: Secret = _NOTHING

    @property
    def name(self) -> str:
        """The repository's own name, as a folder name: ``lab/model.git`` → ``model``."""
        path = self.url if "://" not in self.url else urlsplit(self.url).path
        last = re.split(r"[/:]", path.rstrip("/"))[-1].removesuffix(".git")
        return re.sub(r"[^A-Za-z0-9._+-]", "_", last).lstrip(".-") or "repository"

    @property
    def folder(self) -> str:
        """Name of its mirror: one for each address, whoever asks and with whatever credentials."""
        return f"{self.name}.{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"

    @property
    def origin(self) -> str:
        """``https://host:port``: the only place that may see the credentials."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


def resolve(repository: str, git: GitSettings) -> Remote:
    """The remote that a task's ``script.repository`` stands for under these settings.

    Raises:
        SourceError: it is no address of a repository, or one that git could take for an option or a program to run.
    """
    text = repository.strip()
    shown = without_credentials(text)
    if text.startswith("-") or _TRANSPORT.match(text) or _UNPRINTABLE.search(text):
        raise SourceError(f"repository {shown!r} is refused: it is not a plain address of a git repository")
    if "://" in text:
        parts = urlsplit(text)
        if parts.scheme.lower() not in _SCHEMES or (parts.hostname or "").startswith("-"):
            raise SourceError(f"repository {shown!r} is refused: use an https, http, ssh, git or file address")
        return _from_url(parts, git)
    if scp := _SCP.match(text):
        if scp["host"].startswith("-"):
            raise SourceError(f"repository {shown!r} is refused: it is not a plain address of a git repository")
        return _from_ssh(scp["user"] or "", scp["host"], None, scp["path"], text, git)
    if text.startswith("/"):
        return Remote(posixpath.normpath(text))
    raise SourceError(
        f"repository {shown!r} is neither an address nor an absolute path: nothing can be fetched from it"
    )


def _from_url(parts: SplitResult, git: GitSettings) -> Remote:
    host = (parts.hostname or "").lower()
    if parts.scheme in _SSH:
        return _from_ssh(parts.username or "", host, parts.port, parts.path.lstrip("/"), urlunsplit(parts), git)
    if parts.scheme not in _HTTP:
        return Remote(urlunsplit(parts))
    if git.force_ssh and _serves(git, host):
        return Remote(_ssh_url(git.ssh_user or "git", host, git.ssh_port, parts.path))
    clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username or parts.password:
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if not password and git.password and git.user in ("", user) and _serves(git, host):
            password = git.password.reveal()
        return Remote(clean, user, Secret(password))
    return _with_credentials(clean, host, git)


def _from_ssh(user: str, host: str, port: int | None, path: str, text: str, git: GitSettings) -> Remote:
    if git.force_ssh:
        if git.ssh_user or git.ssh_port:
            return Remote(_ssh_url(git.ssh_user or user or "git", host, git.ssh_port or port, path))
        return Remote(text)
    if git.translate_ssh and git.user and git.password and _serves(git, host):
        # An ssh port says nothing about where https is served.
        return _with_credentials(f"https://{host}/{path.lstrip('/')}", host, git)
    return Remote(text)


def _ssh_url(user: str, host: str, port: int | None, path: str) -> str:
    return f"ssh://{user}@{host}{f':{port}' if port else ''}/{path.lstrip('/')}"


def _with_credentials(url: str, host: str, git: GitSettings) -> Remote:
    if not git.password or not _serves(git, host):
        return Remote(url)
    # With a token any user name will do, but none will not.
    return Remote(url, git.user or "git", git.password)


def _serves(git: GitSettings, host: str) -> bool:
    """Whether the configured credentials are meant for this host."""
    return not git.host or git.host.lower() == host.lower()


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
