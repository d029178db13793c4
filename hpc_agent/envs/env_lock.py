"""Lock of an environment (exact versions with hashes), and the key: everything that its content depends on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from hpc_agent.domain.env import EnvKey
from hpc_agent.envs.env_request import FORMAT
from hpc_agent.envs.installers import InstallContext, Installer
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.requirements import RequirementLines, ResolutionError, name_of, shown
from hpc_agent.git_credentials import GitCredential
from hpc_agent.redact import Secret

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(?===| @ |\[)")
_GIT = re.compile(r"git\+|\bgit\b\s{0,9}=")
_HASH = "--hash="
_NO_LINES = RequirementLines()
_FILE = re.compile(r"@ (?P<url>file://\S+)")
_REPOSITORY = re.compile(r"git\+(?P<scheme>https?)://(?P<user>[^/\s@:]+)(?::(?P<password>[^/\s@]*))?@(?P<host>[^/\s]+)")


@dataclass(frozen=True)
class EnvLock:
    """``lines``: one for each package, sorted, hashes included. ``late``: requirements that are installed after
    these and built with them (``post_packages``); their versions are the installer's choice. ``options``: further lines
    that say where packages are found. ``own_code``: digest of the project's own package, where that is among ``lines``.
    ``notes``: on what a project asks for and is not used.
    """

    lines: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    own_code: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_built_here(self) -> bool:
        """Whether something of the task's repository is installed."""
        return any(line.startswith("./") for line in (*self.lines, *self.late))

    @property
    def packages(self) -> tuple[str, ...]:
        """As ``pip freeze`` prints them."""
        return tuple(line.partition(" --hash=")[0] for line in self.lines)


@dataclass(frozen=True)
class LockInput:
    """Requirement lines made ready for an installer: no passwords in them, no files of somebody else's machine."""

    lines: tuple[str, ...]
    late: tuple[str, ...]
    options: tuple[str, ...]
    credentials: tuple[GitCredential, ...]


def resolve(
    asked: RequirementLines, wanted: LockInput, installer: Installer, base: Interpreter, place: InstallContext
) -> EnvLock:
    """Uses the network, if there is anything to resolve.

    Raises:
        EnvironmentBuildError: no such package or version, or no index; with the resolver's own words.
    """
    if not wanted.lines:
        return EnvLock((), wanted.late)
    text = installer.resolve(wanted.lines, asked.constraints, base, place)
    return EnvLock(normalise(text, asked), wanted.late)


def prepare(asked: RequirementLines, post_packages: Sequence[str], progress: Callable[[str], None]) -> LockInput:
    lines: list[str] = []
    late: list[str] = []
    credentials: list[GitCredential] = []
    for line in asked.requirements:
        clean, found = without_password(_known(line, progress))
        credentials += found
        (late if name_of(clean) in post_packages else lines).append(clean)
    return LockInput(tuple(lines), tuple(late), asked.options, tuple(credentials))


def needs_git(lines: Sequence[str], texts: Iterable[str] = ()) -> bool:
    """Whether an installer will fetch repositories for these requirement lines, or for projects with these ``texts``.

    Only then it gets credentials for that: what it builds sees its whole environment.
    """
    return any("git+" in line for line in lines) or any(_GIT.search(text) for text in texts)


def _known(line: str, progress: Callable[[str], None]) -> str:
    """A line that names a file of somebody else's machine (conda's ``pip freeze`` does) is asked for by name."""
    match = _FILE.search(line)
    if not match or Path(unquote(urlsplit(match["url"]).path)).exists():
        return line
    progress(f"{line!r} names a file that is not here: taking {name_of(line)} from the package index")
    return name_of(line)


def without_password(line: str) -> tuple[str, list[GitCredential]]:
    """A line with a repository's address, and what stood in the address: git gets it another way."""
    match = _REPOSITORY.search(line)
    if not match:
        return line, []
    origin = f"{match['scheme']}://{match['host']}"
    credential = GitCredential(origin, unquote(match["user"]), Secret(unquote(match["password"] or "")))
    return line.replace(match[0], f"git+{origin}"), [credential]


def normalise(lock: str, asked: RequirementLines = _NO_LINES) -> tuple[str, ...]:
    """One package a line, hashes sorted, comments gone: the same lock is the same text.

    Of a package for which ``asked`` has hashes no other file will do: resolvers write down those of all files.

    Raises:
        ResolutionError: all packages must have hashes in ``asked``, and one has none.
    """
    given: dict[str, set[str]] = {}
    for line in (*asked.requirements, *asked.constraints):
        given.setdefault(_subject(line), set()).update(word for word in line.split() if word.startswith(_HASH))
    lines = []
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            hashes = {word for word in words if word.startswith(_HASH)}
            line = _NAME.sub(_canonical, " ".join(word for word in words if not word.startswith(_HASH)))
            if allowed := given.get(_subject(line)) or given.get(words[2] if " @ " in line else ""):
                hashes = hashes & allowed or allowed
            elif "--require-hashes" in asked.options:
                raise ResolutionError(
                    f"the task's requirements cannot be resolved: --require-hashes is among them, and {line} has no "
                    "--hash there"
                )
            lines.append(" ".join([line, *sorted(hashes)]))
    return tuple(sorted(lines))


def _subject(line: str) -> str:
    """What a requirement line is about: a package's name, or an address or path without one."""
    return name_of(line) or line.partition(" ")[0]


def _canonical(name: re.Match[str]) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def key_parts(
    lock: Sequence[str],
    interpreter: Interpreter,
    *,
    installer: str,
    flags: tuple[str, ...],
    system_site: bool,
    source: str,
    image: str = "",
    site: Sequence[str] = (),
) -> dict[str, object]:
    """The parts, each with its reason.

    ``lock`` is sorted and in one form; ``flags`` are those handed to the installer; ``source`` identifies local code,
    ``image`` the container image that the interpreter is in.
    """
    return {
        "format": FORMAT,  # how environments are made and packed
        "lock": shown(lock),  # which packages, to the byte
        "executable": interpreter.executable,  # bin/python is a link to it and pyvenv.cfg names its folder
        "version": interpreter.version,  # byte-code and the standard library differ by it
        "implementation": interpreter.implementation,  # CPython's extensions do not load into others
        "abi": interpreter.abi,  # debug and free-threaded builds of one version want other extensions
        "platform": interpreter.platform,  # processor and system of the wheels
        "libc": interpreter.libc,  # a newer glibc admits wheels that older nodes cannot load
        "installer": installer,  # uv and pip pick and build a few packages differently
        "flags": flags,  # such as --no-binary
        "system_site": system_site,  # what is importable beside the packages
        "source": source,  # code of the task's own repository that is installed
        **({"image": image} if image else {}),  # its libraries and its packages, which the environment sees
        **({"site": list(site)} if site else {}),  # folders whose packages it sees
    }


def key_of(parts: dict[str, object]) -> EnvKey:
    return EnvKey(hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32])
