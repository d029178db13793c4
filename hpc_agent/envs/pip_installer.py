"""pip, for sites that want it (``agent.package_manager.type: pip``), and for flags that uv does not know.

It runs from an environment of its own beside the task's, so that the task's holds only what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from hpc_agent.envs.installers import InstallContext, InstallerRunner, as_error
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.requirements import ResolutionError
from hpc_agent.errors import EnvironmentBuildError


@dataclass(frozen=True)
class _Archive:
    hashes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Repository:
    vcs: str
    commit_id: str


@dataclass(frozen=True)
class _Download:
    url: str
    archive_info: _Archive | None = None
    vcs_info: _Repository | None = None
    subdirectory: str = ""


@dataclass(frozen=True)
class _Metadata:
    name: str
    version: str


@dataclass(frozen=True)
class _Item:
    download_info: _Download
    metadata: _Metadata
    is_direct: bool = False

    @property
    def line(self) -> str:
        download = self.download_info
        end = f"#subdirectory={download.subdirectory}" if download.subdirectory else ""
        if download.vcs_info:
            vcs = download.vcs_info
            return f"{self.metadata.name} @ {vcs.vcs}+{download.url}@{vcs.commit_id}{end}"
        hashes = download.archive_info.hashes if download.archive_info else {}
        pinned = "".join(f" --hash={kind}:{value}" for kind, value in sorted(hashes.items()))
        if self.is_direct:
            return f"{self.metadata.name} @ {download.url}{end}{pinned}"
        return f"{self.metadata.name}=={self.metadata.version}{pinned}"


@dataclass(frozen=True)
class _Report:
    """pip's installation report, version 1."""

    install: tuple[_Item, ...]


class PipInstaller:
    def __init__(self, tools: InstallerRunner) -> None:
        self._tools = tools

    def resolve(
        self, lines: Sequence[str], constraints: Sequence[str], base: Interpreter, place: InstallContext
    ) -> str:
        asked = place.write("requirements.in", [*self._tools.index_lines, *place.options, *lines])
        limits = place.write("constraints.txt", constraints)
        report = place.work / "report.json"
        arguments = ["--dry-run", "--ignore-installed", "--report", str(report), "-r", asked, "-c", limits]
        self._pip(["install", *arguments], base, place, "the task's requirements cannot be resolved", ResolutionError)
        try:
            items = msgspec.json.decode(report.read_bytes(), type=_Report).install
        except (OSError, msgspec.DecodeError) as error:
            raise EnvironmentBuildError(f"pip's report of what it resolved cannot be read: {error}") from error
        return "\n".join(item.line for item in items)

    def install(self, lock: Sequence[str], root: Path, base: Interpreter, place: InstallContext) -> None:
        # pip wants hashes for all lines of a file or for none; repositories and folders have none.
        hashed = [line for line in lock if "--hash=" in line]
        others = [line for line in lock if "--hash=" not in line]
        for name, lines in (("hashed.txt", hashed), ("others.txt", others)):
            if lines:
                file = place.write(name, [*self._tools.index_lines, *place.options, *lines])
                self._install(root, ["--no-deps", "-r", file], base, place)

    def install_late(
        self, lines: Sequence[str], lock: Sequence[str], root: Path, base: Interpreter, place: InstallContext
    ) -> None:
        late = place.write("late.txt", [*self._tools.index_lines, *place.options, *lines])
        limits = place.write("installed.txt", [line.partition(" --hash=")[0] for line in lock if "==" in line])
        tools = place.write("tools.txt", [*self._tools.index_lines, *place.options, "setuptools", "wheel"])
        self._install(root, ["-r", tools], base, place)
        self._install(root, ["--no-build-isolation", "-r", late, "-c", limits], base, place)

    def _install(self, root: Path, arguments: Sequence[str], base: Interpreter, place: InstallContext) -> None:
        inside = ["--python", str(root / "bin" / "python"), "install", "--no-compile"]
        self._pip([*inside, *arguments], base, place, "the task's packages cannot be installed")

    def _pip(
        self,
        arguments: Sequence[str],
        base: Interpreter,
        place: InstallContext,
        failed: str,
        kind: type[EnvironmentBuildError] = EnvironmentBuildError,
    ) -> None:
        own = place.work / "pip"
        if not own.exists():
            self._tools.virtualenv(base, own, pip=True)
        flags = self._tools.packages.extra_pip_install_flags
        argv = [str(own / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        answer = self._tools.run(
            [*argv, *arguments, *flags], cwd=place.cwd, credentials=place.credentials, needs_git=place.needs_git
        )
        if not answer.ok:
            raise as_error(failed, answer, kind)
