"""The online half: resolve, build in a private local folder, pack, publish."""

from __future__ import annotations

import getpass
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hpc_agent import files
from hpc_agent.clock import Clock
from hpc_agent.config.settings import PackageSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import archive, inventory, lock
from hpc_agent.envs.build import build
from hpc_agent.envs.install import Toolbox
from hpc_agent.envs.interpreter import Interpreter
from hpc_agent.envs.key import key_of, key_parts
from hpc_agent.envs.manifest import Manifest
from hpc_agent.envs.node import remove_tree
from hpc_agent.envs.request import EnvRequest
from hpc_agent.envs.requirements import shown
from hpc_agent.envs.shared import ARCHIVE, LOCK, SharedCache
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.lease import only_one

Progress = Callable[[str], None]


class Builder:
    """Builds in ``folder``, a local folder of the user's own, and publishes in ``shared``."""

    def __init__(
        self, shared: SharedCache, folder: Path, packages: PackageSettings, clock: Clock, environ: Mapping[str, str]
    ) -> None:
        self._shared = shared
        self._folder = folder
        self._packages = packages
        self._clock = clock
        self._tools = Toolbox(packages, folder, os.environ, environ)

    def lock(self, request: EnvRequest, base: Interpreter, source_root: Path | None, progress: Progress) -> str:
        """
        Raises:
            EnvironmentBuildError: the requirements cannot be resolved.
        """
        if request.lines.requirements:
            progress(f"Resolving {len(request.lines.requirements)} requirements for {base.shown}")
        with self._workplace() as work:
            return lock.resolve(request, base, self._tools, work, source_root, progress)

    def ensure(
        self,
        locked: str,
        request: EnvRequest,
        base: Interpreter,
        source_root: Path | None,
        progress: Progress,
        *,
        published: Callable[[EnvKey], Manifest | None],
    ) -> tuple[EnvKey, bool]:
        """The key of the environment for ``locked``, and whether it was built now rather than found.

        Raises:
            EnvironmentBuildError: it cannot be built or stored.
        """
        parts = key_parts(
            locked,
            base,
            installer=self._packages.type,
            flags=shown(self._packages.extra_pip_install_flags),
            system_site=self._packages.system_site_packages,
            source=request.source,
        )
        key = key_of(parts)
        if published(key):
            return key, False
        with only_one(
            self._shared.leases / f"build-{key}",
            self._clock,
            done=lambda: published(key) is not None,
            waiting=lambda: progress(f"Waiting for another process that builds environment {key}"),
        ) as mine:
            if mine:
                progress(f"Building environment {key}: {len(locked.splitlines())} packages")
                self._build(key, parts, locked, base, source_root, progress)
        return key, mine

    def _build(
        self,
        key: EnvKey,
        parts: dict[str, object],
        locked: str,
        base: Interpreter,
        source_root: Path | None,
        progress: Progress,
    ) -> None:
        started = self._clock.monotonic()
        with self._workplace() as work:
            root = build(locked, base, self._packages, self._tools, work, source_root)
            content = inventory.record(root)
            progress(f"Packing environment {key}")
            with self._shared.publishing(key) as target:
                packed = self._pack(key, root, target)
                (target / LOCK).write_text("\n".join(shown(locked.splitlines())) + "\n")
                manifest = Manifest(
                    key=key,
                    packages=shown(lock.packages_of(locked)),
                    parts={name: part for name, part in parts.items() if name != "lock"},
                    executable=base.executable,
                    version=".".join(map(str, base.version)),
                    libc=base.libc,
                    size=packed.size,
                    sha256=packed.sha256,
                    files=content.files,
                    unpacked=content.bytes,
                    built_at=self._clock.now(),
                    built_by=f"{getpass.getuser()}@{socket.gethostname()}",
                    seconds=round(self._clock.monotonic() - started, 3),
                )
                self._shared.write_manifest(target, manifest)
        progress(f"Environment {key} is in the cache: {packed.size / 1e6:.0f} MB")

    def _pack(self, key: EnvKey, root: Path, target: Path) -> archive.Packed:
        try:
            return archive.pack(root, target / ARCHIVE)
        except ProcessError as error:
            raise EnvironmentBuildError(f"environment {key} cannot be packed: {error}") from error

    @contextmanager
    def _workplace(self) -> Iterator[Path]:
        """A private empty folder on the local disk, gone afterwards.

        Raises:
            EnvironmentBuildError: the local disk is full or broken.
        """
        try:
            files.ensure_directory(self._folder / "build")
            work = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._folder / "build"))
            try:
                yield work
            finally:
                remove_tree(work)
        except OSError as error:
            raise EnvironmentBuildError(
                f"the environment cannot be built in {self._folder}: {error.strerror or error}; "
                "give it room, or name another local folder with hpc.scratch_dir"
            ) from error
