"""Environments for a container image: built in it with its own Python, whose packages they see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.process import CompletedProcess


class ImagePythonApi(Protocol):
    """An image, as far as environments are concerned."""

    @property
    def identity(self) -> str:
        """Stands for the image's content."""

    @property
    def interpreter(self) -> Interpreter:
        """The image's own."""

    @property
    def packages(self) -> Mapping[str, str]:
        """What the image's Python has: normalised name → version."""

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


def missing(lines: Iterable[str], packages: Mapping[str, str]) -> tuple[str, ...]:
    """Requirement lines that what is there does not meet, as pip decides where it sees ``packages``."""
    return tuple(line for line in lines if not _is_met(line, packages))


def _is_met(line: str, packages: Mapping[str, str]) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        wanted = Requirement(line.partition(" --hash=")[0])
    except InvalidRequirement:
        return False
    version = packages.get(canonicalize_name(wanted.name))
    if version is None or wanted.url or wanted.extras:
        return False
    return wanted.specifier.contains(version, prereleases=True)
