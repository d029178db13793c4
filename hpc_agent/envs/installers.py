"""What resolves and installs packages: uv, or pip where a site wants it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpc_agent.envs.installer_runner import InstallerRunner
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.git_credentials import GitCredential


@dataclass(frozen=True)
class InstallContext:
    """``work``: a private folder for files of the installer's; ``cwd``: what relative paths in lines start from;
    ``options``: lines that say where packages are found; ``credentials`` were taken out of the lines; ``needs_git``:
    whether some line names a repository."""

    work: Path
    cwd: Path
    options: tuple[str, ...] = ()
    credentials: tuple[GitCredential, ...] = ()
    needs_git: bool = False

    def write(self, name: str, lines: Sequence[str]) -> str:
        """A file of lines; returns its path."""
        path = self.work / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)


class Installer(Protocol):
    """Lines are requirement lines; a lock is text in pip's format. All raise EnvironmentBuildError."""

    def resolve(
        self, lines: Sequence[str], constraints: Sequence[str], base: Interpreter, place: InstallContext
    ) -> str:
        """The lock for ``lines``: every package with its version, and hashes where there are any."""

    def install(self, lock: Sequence[str], root: Path, base: Interpreter, place: InstallContext) -> None:
        """Install exactly the lock into the environment at ``root``, without byte-code."""

    def install_late(
        self, lines: Sequence[str], lock: Sequence[str], root: Path, base: Interpreter, place: InstallContext
    ) -> None:
        """Install what can only be built where everything else is there already, without changing the rest."""


def installer_for(tools: InstallerRunner) -> Installer:
    """
    Raises:
        EnvironmentBuildError: the settings name one that this version does not have.
    """
    kind = tools.packages.type
    if kind in ("uv", "poetry"):  # poetry decides what is asked for; uv installs it
        from hpc_agent.envs.uv_installer import UvInstaller

        return UvInstaller(tools)
    if kind == "pip":
        from hpc_agent.envs.pip_installer import PipInstaller

        return PipInstaller(tools)
    raise EnvironmentBuildError(
        f"agent.package_manager.type is {kind!r}: its environments cannot be moved, so that no shared cache can hold "
        "them; use uv, pip or poetry"
    )
