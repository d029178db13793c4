"""Lock of an environment: exact versions with hashes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from hpc_agent.envs.installers import InstallContext, Installer
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.requirements import RequirementLines, ResolutionError, name_of
from hpc_agent.git_credentials import GitCredential
from hpc_agent.progress import Progress
from hpc_agent.redact import Secret

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(?===| @ |\[)")
_GIT = re.compile(r"git\+|\bgit\b\s{0,9}=")
_HASH = "--hash="
_NO_LINES = RequirementLines()
_FILE = re.compile(r"@ (?P<url>file://\S+)")
_REPOSITORY = re.compile(r"git\+(?P<scheme>https?)://(?P<user>[^/\s@:]+)(?::(?P<password>[^/\s@]*))?@(?P<host>[^/\s]+)")


class EnvLock(msgspec.Struct, frozen=True):
    """Exact requirements of an environment.

    ``lines``: one per package, sorted, with hashes. ``post_packages``: requirements that are installed after these and
    built with them; the installer chooses their versions. ``options``: further lines that name package indexes.
    ``own_code``: digest of the project's own package if ``lines`` has it. ``notes``: parts of a project that are
    ignored.
    """

    lines: tuple[str, ...] = ()
    post_packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    own_code: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_built_here(self) -> bool:
        """Whether something of the task's repository is installed."""
        return any(line.startswith("./") for line in (*self.lines, *self.post_packages))

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages as ``pip freeze`` prints them."""
        return tuple(line.partition(" --hash=")[0] for line in self.lines)


class LockInput(msgspec.Struct, frozen=True):
    """Requirement lines for an installer, without passwords and without files of other machines."""

    lines: tuple[str, ...]
    post_packages: tuple[str, ...]
    options: tuple[str, ...]
    credentials: tuple[GitCredential, ...]


def resolve(
    requested: RequirementLines, lock_input: LockInput, installer: Installer, base: Interpreter, context: InstallContext
) -> EnvLock:
    """Resolve requirements to a lock. Uses the network unless there is nothing to resolve.

    Raises:
        EnvironmentBuildError: no such package or version, or no index; with the resolver's message.
    """
    if not lock_input.lines:
        return EnvLock((), lock_input.post_packages)
    text = installer.resolve(lock_input.lines, requested.constraints, base, context)
    return EnvLock(normalise(text, requested), lock_input.post_packages)


def prepare_input(requested: RequirementLines, post_packages: Sequence[str], progress: Progress) -> LockInput:
    """Split requirement lines into those to lock and ``post_packages`` (names), and take passwords out."""
    lines: list[str] = []
    postponed: list[str] = []
    credentials: list[GitCredential] = []
    for line in requested.requirements:
        clean, found = without_password(_without_missing_file(line, progress))
        credentials += found
        (postponed if name_of(clean) in post_packages else lines).append(clean)
    return LockInput(tuple(lines), tuple(postponed), requested.options, tuple(credentials))


def needs_git(lines: Sequence[str], texts: Iterable[str] = ()) -> bool:
    """Whether an installer will fetch git repositories for these requirement lines, or for projects with these texts.

    Only then does it get credentials for git: everything that it builds sees its whole environment.
    """
    return any("git+" in line for line in lines) or any(_GIT.search(text) for text in texts)


def _without_missing_file(line: str, progress: Progress) -> str:
    """The line, or only its package name if it names a file that is not on this machine (conda's ``pip freeze``)."""
    match = _FILE.search(line)
    if not match or Path(unquote(urlsplit(match["url"]).path)).exists():
        return line
    progress(f"{line!r} names a file that does not exist here: taking {name_of(line)} from the package index")
    return name_of(line)


def without_password(line: str) -> tuple[str, list[GitCredential]]:
    """The line without the user name and password of a repository's address, and those as credentials for git."""
    match = _REPOSITORY.search(line)
    if not match:
        return line, []
    origin = f"{match['scheme']}://{match['host']}"
    credential = GitCredential(origin, unquote(match["user"]), Secret(unquote(match["password"] or "")))
    return line.replace(match[0], f"git+{origin}"), [credential]


def normalise(lock: str, requested: RequirementLines = _NO_LINES) -> tuple[str, ...]:
    """Lock lines in one form (one package per line, hashes sorted, no comments): equal locks are equal texts.

    Resolvers list the hashes of all files of a package; where ``requested`` has hashes, only those are kept.

    Raises:
        ResolutionError: ``requested`` has --require-hashes, and a package has no hash there.
    """
    requested_hashes: dict[str, set[str]] = {}
    for line in (*requested.requirements, *requested.constraints):
        requested_hashes.setdefault(_subject_of(line), set()).update(
            word for word in line.split() if word.startswith(_HASH)
        )
    lines = []
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            hashes = {word for word in words if word.startswith(_HASH)}
            line = _NAME.sub(_canonical, " ".join(word for word in words if not word.startswith(_HASH)))
            if allowed := requested_hashes.get(_subject_of(line)) or requested_hashes.get(
                words[2] if " @ " in line else ""
            ):
                hashes = hashes & allowed or allowed
            elif "--require-hashes" in requested.options:
                raise ResolutionError(
                    f"the task's requirements cannot be resolved: --require-hashes is among them, and {line} has no "
                    "--hash there"
                )
            lines.append(" ".join([line, *sorted(hashes)]))
    return tuple(sorted(lines))


def _subject_of(line: str) -> str:
    """The package name of a requirement line, or its address or path if it has no name."""
    return name_of(line) or line.partition(" ")[0]


def _canonical(name: re.Match[str]) -> str:
    """The normalised name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name[0]).lower()
