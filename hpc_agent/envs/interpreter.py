"""The base interpreter of an environment: found on this machine or in an image, and queried for its details."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.process import programs
from hpc_agent.process.programs import CompletedProcess
from hpc_agent.progress import Progress
from hpc_agent.struct_types import decodable

QUERY = """
import json, os, platform, sys, sysconfig
base = getattr(sys, "_base_executable", None) or sys.executable
print(json.dumps({
    "executable": os.path.realpath(base),
    "version": list(sys.version_info[:3]),
    "implementation": sys.implementation.name,
    "abi": sysconfig.get_config_var("SOABI") or "",
    "platform": sysconfig.get_platform(),
    "libc": "-".join(platform.libc_ver()),
}))
"""
"""Program that makes any Python print an ``Interpreter``."""

_SITE_QUERY = """
import json, re, sys, sysconfig
from importlib.metadata import distributions
found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
own = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")} if sys.prefix != sys.base_prefix else ()
packages = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found.items()}
print(json.dumps({"packages": packages, "folders": sorted(own)}))
"""


class Interpreter(msgspec.Struct, frozen=True):
    """Base interpreter. ``executable``: its real path. ``libc``: e.g. ``glibc-2.36``."""

    executable: str
    version: tuple[int, int, int]
    implementation: str
    abi: str
    platform: str
    libc: str

    @property
    def minor(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def description(self) -> str:
        return f"Python {'.'.join(map(str, self.version))} ({self.executable})"


class Site(msgspec.Struct, frozen=True):
    """Packages that an environment sees from outside. ``packages``: normalised name → version; ``folders``: where they
    are, in addition to the base interpreter's own."""

    packages: Mapping[str, str] = msgspec.field(default_factory=dict)
    folders: tuple[str, ...] = ()


def find(requested: str, packages: PackageSettings, progress: Progress) -> Interpreter:
    """The interpreter for a request such as ``3.11``; the settings' own beats it.

    See docs/internals/clearml-protocol.md#interpreter.

    Raises:
        EnvironmentBuildError: no interpreter can be run.
    """
    if packages.python_binary:
        path = shutil.which(packages.python_binary)
        if path is None:
            raise EnvironmentBuildError(f"agent.python_binary is {packages.python_binary!r}, which does not exist")
        return query(path)
    running = query(sys.executable)
    if not requested or requested == running.minor:
        return running
    first: Interpreter | None = None
    for path in _candidates(requested):
        try:
            found = query(path)
        except EnvironmentBuildError:
            continue  # a name on PATH that is not a working Python
        if found.minor == requested:
            return found
        first = first or found
    chosen = first or running
    progress(f"Python {requested} is not on this machine: using {chosen.description} instead")
    return chosen


def _candidates(requested: str) -> list[str]:
    """Programs on PATH from ``python3.11`` down to ``python``."""
    names = [f"python{requested}", f"python{requested.partition('.')[0]}", "python"]
    return [path for name in names if (path := shutil.which(name))]


def query(path: str) -> Interpreter:
    """The details that the program at ``path`` reports of itself.

    Raises:
        EnvironmentBuildError: it does not run, or is not Python.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    try:
        answer = programs.run([path, "-I", "-S", "-c", QUERY], timeout=60, env=env)
        if answer.ok:
            return msgspec.json.decode(answer.stdout, type=decodable(Interpreter))
        raise EnvironmentBuildError(f"{path} is not a working Python: {answer.last_words}")
    except (ProcessError, msgspec.DecodeError) as error:
        raise EnvironmentBuildError(f"{path} is not a working Python: {error}") from error


def site_of(packages: PackageSettings, base: Interpreter) -> Site:
    """Packages that the interpreter of the settings (else ``base``) sees; it may be that of an environment.

    Raises:
        EnvironmentBuildError: it does not run.
    """
    path = shutil.which(packages.python_binary or base.executable) or base.executable
    try:
        answer = programs.run([path, "-I", "-c", _SITE_QUERY], timeout=60)
        return msgspec.json.decode(answer.stdout, type=decodable(Site))
    except (ProcessError, msgspec.DecodeError) as error:
        raise EnvironmentBuildError(f"{path} does not list its packages: {error}") from error


def exists(executable: str) -> bool:
    """Whether this machine has the base interpreter of an environment."""
    return os.access(Path(executable), os.X_OK)


def has_older_libc(built_with: str) -> bool:
    """Whether this machine's C library is older than the one named, e.g. ``glibc-2.36``."""
    try:
        here = os.confstr("CS_GNU_LIBC_VERSION") or ""  # "glibc 2.36"
    except (OSError, ValueError):
        return False
    return _libc(here) is not None and (_libc(here) or ()) < (_libc(built_with) or ())


def _libc(text: str) -> tuple[int, ...] | None:
    match = re.match(r"^glibc[ -](\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


class ImagePythonApi(Protocol):
    """Python of a container image: environments for the image are built in it and see its packages."""

    @property
    def identity(self) -> str:
        """Digest or path that identifies the image's content."""

    @property
    def interpreter(self) -> Interpreter:
        """The image's own."""

    @property
    def packages(self) -> Mapping[str, str]:
        """Packages of the image's Python: normalised name → version."""

    @property
    def site(self) -> tuple[str, ...]:
        """Further folders that its packages are in."""

    def run(
        self, argv: list[str], *, timeout: float, env: Mapping[str, str], cwd: Path, folders: Mapping[Path, bool]
    ) -> CompletedProcess:
        """Run a program in the image. ``folders`` of this machine are there under the same path; True: writable.

        Raises:
            ProcessError: it could not be started, or did not end in time.
        """


def unmet(lines: Iterable[str], packages: Mapping[str, str]) -> tuple[str, ...]:
    """Requirement lines that ``packages`` do not satisfy, as pip would decide."""
    return tuple(line for line in lines if not _is_met(line, packages))


def _is_met(line: str, packages: Mapping[str, str]) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        requirement = Requirement(line.partition(" --hash=")[0])
    except InvalidRequirement:
        return False
    version = packages.get(canonicalize_name(requirement.name))
    if version is None or requirement.url or requirement.extras:
        return False
    return requirement.specifier.contains(version, prereleases=True)
