"""pip, for sites that want it (``agent.package_manager.type: pip``), and for flags that uv does not know.

It runs from an environment of its own, so that the task's has only the requested packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpc_agent.envs.installers import InstallContext, InstallerRunner, installer_error
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.requirements import ResolutionError
from hpc_agent.errors import EnvironmentBuildError
from hpc_agent.struct_types import decodable


class _Archive(msgspec.Struct, frozen=True):
    hashes: dict[str, str] = msgspec.field(default_factory=dict)


class _Repository(msgspec.Struct, frozen=True):
    vcs: str
    commit_id: str


class _Download(msgspec.Struct, frozen=True):
    url: str
    archive_info: _Archive | None = None
    vcs_info: _Repository | None = None
    subdirectory: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    version: str


class _Item(msgspec.Struct, frozen=True):
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


class _Report(msgspec.Struct, frozen=True):
    """pip's installation report, version 1."""

    install: tuple[_Item, ...]


class PipInstaller:
    """Installer that resolves and installs with pip; see ``installers.Installer``."""

    def __init__(self, runner: InstallerRunner) -> None:
        self._runner = runner

    def resolve(
        self, lines: Sequence[str], constraints: Sequence[str], base: Interpreter, context: InstallContext
    ) -> str:
        requested_file = context.write("requirements.in", [*self._runner.index_lines, *context.options, *lines])
        constraints_file = context.write("constraints.txt", constraints)
        report = context.work / "report.json"
        arguments = [
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
            "-r",
            requested_file,
            "-c",
            constraints_file,
        ]
        self._pip(["install", *arguments], base, context, "the task's requirements cannot be resolved", ResolutionError)
        try:
            items = msgspec.json.decode(report.read_bytes(), type=decodable(_Report)).install
        except (OSError, msgspec.DecodeError) as error:
            raise EnvironmentBuildError(f"pip's report of what it resolved cannot be read: {error}") from error
        return "\n".join(item.line for item in items)

    def install(self, lock: Sequence[str], root: Path, base: Interpreter, context: InstallContext) -> None:
        # pip wants hashes for all lines of a file or for none; repositories and folders have none.
        hashed = [line for line in lock if "--hash=" in line]
        others = [line for line in lock if "--hash=" not in line]
        for name, lines in (("hashed.txt", hashed), ("others.txt", others)):
            if lines:
                file = context.write(name, [*self._runner.index_lines, *context.options, *lines])
                self._install(root, ["--no-deps", "-r", file], base, context)

    def install_post_packages(
        self, lines: Sequence[str], lock: Sequence[str], root: Path, base: Interpreter, context: InstallContext
    ) -> None:
        post_packages_file = context.write("post-packages.txt", [*self._runner.index_lines, *context.options, *lines])
        constraints_file = context.write(
            "installed.txt", [line.partition(" --hash=")[0] for line in lock if "==" in line]
        )
        tools_file = context.write("tools.txt", [*self._runner.index_lines, *context.options, "setuptools", "wheel"])
        self._install(root, ["-r", tools_file], base, context)
        self._install(root, ["--no-build-isolation", "-r", post_packages_file, "-c", constraints_file], base, context)

    def _install(self, root: Path, arguments: Sequence[str], base: Interpreter, context: InstallContext) -> None:
        inside = ["--python", str(root / "bin" / "python"), "install", "--no-compile"]
        self._pip([*inside, *arguments], base, context, "the task's packages cannot be installed")

    def _pip(
        self,
        arguments: Sequence[str],
        base: Interpreter,
        context: InstallContext,
        failed: str,
        kind: type[EnvironmentBuildError] = EnvironmentBuildError,
    ) -> None:
        own = context.work / "pip"
        if not own.exists():
            self._runner.virtualenv(base, own, pip=True)
        flags = self._runner.packages.extra_pip_install_flags
        argv = [str(own / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        completed = self._runner.run(
            [*argv, *arguments, *flags], cwd=context.cwd, credentials=context.credentials, needs_git=context.needs_git
        )
        if not completed.ok:
            raise installer_error(failed, completed, kind)
