"""Environments of tasks: built once where there is a network, used everywhere else without one."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from hpc_agent import files
from hpc_agent.clock import Clock
from hpc_agent.config.settings import PackageSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import interpreter, mounted, node
from hpc_agent.envs.archive import ArchiveError
from hpc_agent.envs.foreign import Foreign
from hpc_agent.envs.manifest import Failure, Manifest, Resolution
from hpc_agent.envs.node import NodeCache
from hpc_agent.envs.request import EnvRequest
from hpc_agent.envs.requirements import ResolutionError, shown
from hpc_agent.envs.shared import SharedCache
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.git_credentials import GitCredential

Progress = Callable[[str], None]
How = Literal["ready", "unpacked", "mounted", "in place"]

FRESH = timedelta(minutes=10)
"""How long a resolution is taken for current. The rule: where there is a network, requirements are resolved again,
so that an unpinned package gets the release it would get today; but the tasks of one sweep, staged one after another,
share one answer, as they would with uv's own ten-minute cache of the index. Offline the last answer holds for ever."""


@dataclass(frozen=True)
class StagedEnv:
    """``packages`` as ``pip freeze`` prints them; ``built``: whether this call built it."""

    key: EnvKey
    packages: tuple[str, ...] = ()
    built: bool = False


@dataclass(frozen=True)
class UsableEnv:
    """``python`` is the environment's interpreter, ``root`` its folder, ``packages`` as ``pip freeze`` prints them.

    ``how``: ``ready`` (another job had unpacked it on this node), ``unpacked`` (by this call), ``mounted`` (until this
    process ends), or ``in place`` (on the shared file system). ``base``: the interpreter that it is made with, in the
    container image ``image`` (its identity) if that is named.
    """

    python: Path
    root: Path
    key: EnvKey
    how: How
    packages: tuple[str, ...] = ()
    image: str = ""
    base: str = ""


class EnvStore:
    """The shared cache under ``cache_dir`` and this node's share of it under ``scratch``.

    ``credentials``: for requirements that installers fetch with git. ``mount``: make images, and mount them rather
    than unpack, where a machine can.
    """

    def __init__(
        self,
        cache_dir: Path,
        scratch: Path,
        packages: PackageSettings,
        clock: Clock,
        credentials: Sequence[GitCredential] = (),
        mount: bool = False,
    ) -> None:
        self._shared = SharedCache(cache_dir)
        self._scratch = scratch
        self._packages = packages
        self._clock = clock
        self._credentials = tuple(credentials)
        self._mount = mount

    def stage(
        self,
        request: EnvRequest,
        progress: Progress,
        *,
        source_root: Path | None = None,
        foreign: Foreign | None = None,
    ) -> StagedEnv:
        """Make sure that the environment is in the shared cache. May use the network and take minutes.

        ``source_root``: a checkout of the task's repository, needed where ``request.needs_source``. ``foreign``: the
        image whose identity is ``request.image``.

        Raises:
            EnvironmentBuildError: it cannot be resolved, built or stored.
        """
        from hpc_agent.lease import only_one  # imports psutil, of which a compute node has no need

        if request.needs_source and source_root is None:
            raise EnvironmentBuildError(
                f"the requirements {', '.join(request.lines.local)} are built from the task's repository, "
                "of which there is no checkout here"
            )
        digest = request.digest(self._packages)
        if staged := self._current(digest):
            self._shared.note(staged.key, use=False)
            return staged
        before = self._shared.failure(digest)

        def make() -> StagedEnv:
            try:
                return self._stage(request, digest, source_root, foreign, progress)
            except OSError as error:
                raise self._shared.cannot_write(error) from error

        def settled() -> bool:
            return self._shared.failure(digest) != before or self._current(digest) is not None

        try:
            with only_one(
                self._shared.leases / f"request-{digest}",
                self._clock,
                done=settled,
                waiting=lambda: progress("Waiting for another process that prepares the same environment"),
            ) as mine:
                if mine:
                    return make()
        except OSError as error:
            # A cache that we may only read may yet hold what we need.
            progress(f"The cache {self._shared.root} cannot be written to: {error.strerror or error}")
            return make()
        failure = self._shared.failure(digest)
        if failure and failure != before:
            # Fifty tasks of one sweep must not fail one after another, each after minutes of compiling.
            raise EnvironmentBuildError(failure.error)
        return self._current(digest) or make()

    def find(self, request: EnvRequest, *, task: str = "<task id>") -> EnvKey:
        """The key that the request meant when it was last staged. Never uses the network. ``task`` is for the message.

        Raises:
            EnvironmentBuildError: it was never staged; the sentence says how it is.
        """
        digest = request.digest(self._packages)
        resolution = self._shared.resolution(digest)
        if resolution is None:
            raise EnvironmentBuildError(
                f"no environment for these requirements (request {digest}) is in the cache {self._shared.root}: "
                f"{_remedy(task)}"
            )
        return resolution.key

    def use(self, wanted: EnvKey | EnvRequest, progress: Progress, *, task: str = "<task id>") -> UsableEnv:
        """The environment, ready to run on this machine. Never uses the network. ``task`` is for the message.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, is damaged, or cannot run here.
        """
        key = self.find(wanted, task=task) if isinstance(wanted, EnvRequest) else wanted
        manifest = self._published(key)
        if manifest is None:
            raise EnvironmentBuildError(f"environment {key} is not in the cache {self._shared.root}: {_remedy(task)}")
        _check_node(manifest, progress)
        self._shared.note(key, use=True)
        try:
            return self._on_this_node(manifest, progress)
        except ArchiveError as error:
            self._shared.set_aside(key)
            raise EnvironmentBuildError(f"environment {key} is damaged ({error}): {_remedy(task)}") from error

    def lock(
        self, request: EnvRequest, progress: Progress, *, source_root: Path | None, foreign: Foreign | None
    ) -> tuple[str, ...]:
        """Requirement lines, exact and with their indexes, for an installer that puts them elsewhere.

        Raises:
            EnvironmentBuildError: they cannot be resolved.
        """
        from hpc_agent.envs.builder import Builder

        folder = self._local_folder()
        builder = Builder(self._shared, folder, self._packages, self._clock, self._credentials, foreign)
        return builder.lock(request, source_root, progress)

    def copy(self, key: EnvKey, into: Path) -> tuple[str, ...]:
        """Unpack an environment to the new folder ``into``, there to be changed; returns what is in it.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, is damaged, or there is no room.
        """
        manifest = self._published(key)
        if manifest is None:
            raise EnvironmentBuildError(f"environment {key} is not in the cache {self._shared.root}")
        try:
            node.unpack_to(self._shared.archive(key), into)
        except (ArchiveError, OSError, ProcessError) as error:
            raise EnvironmentBuildError(f"environment {key} cannot be unpacked to {into}: {error}") from error
        for folder, _, names in os.walk(into):
            for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118 (12,000 of them)
                if not os.path.islink(path):  # noqa: PTH114
                    os.chmod(path, os.stat(path).st_mode | 0o200)  # noqa: PTH101, PTH116
        return manifest.packages

    def _current(self, digest: str) -> StagedEnv | None:
        """What was staged for the same words a short while ago."""
        resolution = self._shared.resolution(digest)
        if resolution is None or self._clock.now() - resolution.resolved_at > FRESH:
            return None
        manifest = self._published(resolution.key)
        return StagedEnv(manifest.key, manifest.packages) if manifest else None

    def _published(self, key: EnvKey) -> Manifest | None:
        """The manifest, if the environment is there whole; a damaged one is taken out of the way."""
        try:
            manifest = self._shared.manifest(key)
        except files.CorruptFileError:
            manifest = None
            self._shared.set_aside(key)
        if manifest and not self._shared.is_whole(manifest):
            self._shared.set_aside(key)
            return None
        return manifest

    def _stage(
        self,
        request: EnvRequest,
        digest: str,
        source_root: Path | None,
        foreign: Foreign | None,
        progress: Progress,
    ) -> StagedEnv:
        from hpc_agent.envs.builder import Builder  # needs the installers, of which a compute node has none

        folder = self._local_folder()
        try:
            builder = Builder(self._shared, folder, self._packages, self._clock, self._credentials, foreign)
            key, packages, built = builder.ensure(request, source_root, progress, published=self._published)
            if self._mount:
                builder.ensure_image(key, progress)
        except EnvironmentBuildError as error:
            if isinstance(error, ResolutionError) and (earlier := self._earlier(digest, error, progress)):
                return earlier
            with contextlib.suppress(EnvironmentBuildError):
                self._shared.remember(digest, Failure(secrets.token_hex(8), str(error)))
            raise
        resolution = Resolution(key, self._clock.now(), shown(request.lines.requirements))
        try:
            self._shared.remember(digest, resolution)
        except EnvironmentBuildError as error:
            if built:
                raise
            progress(str(error))  # the key will do
        self._shared.note(key, use=False)
        return StagedEnv(key, packages, built)

    def _earlier(self, digest: str, error: ResolutionError, progress: Progress) -> StagedEnv | None:
        """What the same words meant before: an index that is down must not stop what worked yesterday."""
        resolution = self._shared.resolution(digest)
        manifest = self._published(resolution.key) if resolution else None
        if resolution is None or manifest is None:
            return None
        progress(f"{error}; taking the environment that they meant on {resolution.resolved_at:%Y-%m-%d %H:%M} UTC")
        return StagedEnv(manifest.key, manifest.packages)

    def _local_folder(self) -> Path:
        folder = node.own_folder(self._scratch) or node.own_folder(Path(tempfile.gettempdir()))
        if folder is None:
            raise EnvironmentBuildError(
                f"no folder to build in: {self._scratch} is not writable, or another user has taken our folder's name"
            )
        return folder

    def _on_this_node(self, manifest: Manifest, progress: Progress) -> UsableEnv:
        folder = node.own_folder(self._scratch)
        source = self._shared.archive(manifest.key)
        if folder and self._mount:
            if root := mounted.mount(self._shared.image(manifest.key), folder / "mounts"):
                atexit.register(mounted.unmount, root)
                return _usable(manifest, root, "mounted")
            progress(f"Environment {manifest.key} cannot be mounted on this node: unpacking it")
        if folder:
            try:
                if found := NodeCache(folder).obtain(manifest, source, progress):
                    root, unpacked = found
                    return _usable(manifest, root, "unpacked" if unpacked else "ready")
            except (OSError, ProcessError) as error:
                progress(f"The environment cannot be unpacked to {folder}: {error}")
        return self._in_place(manifest, source, progress)

    def _stay(self, key: EnvKey) -> None:
        """Tell ``hpc-agent cache prune`` that a job runs from the shared tree, until this process ends."""
        from hpc_agent.lease import Lease, Pace

        lease = Lease(self._shared.leases / f"use-{key}-{socket.gethostname()}-{os.getpid()}", self._clock, Pace(60))
        with contextlib.suppress(OSError):  # where we may not write, nobody prunes for us either
            if lease.acquire():
                atexit.register(lease.release)

    def _in_place(self, manifest: Manifest, source: Path, progress: Progress) -> UsableEnv:
        """Without room on the node: a tree on the shared file system, unpacked by the first who needs it."""
        root = self._shared.unpacked / manifest.key
        self._stay(manifest.key)
        if not files.visible(root):
            progress(f"Unpacking the environment {manifest.key} to {root}, for there is no room on this node")
            try:
                files.ensure_directory(root.parent)
                node.unpack_to(source, root)
            except (OSError, ProcessError) as error:
                raise EnvironmentBuildError(
                    f"environment {manifest.key} fits neither {self._scratch} nor {root.parent}: {error}; "
                    "give the job local scratch space (SLURM_TMPDIR, TMPDIR or hpc.scratch_dir)"
                ) from error
        return _usable(manifest, root, "in place")


def _remedy(task: str) -> str:
    return f"stage it where there is a network with `hpc-agent cache warm --id {task}`"


def _usable(manifest: Manifest, root: Path, how: How) -> UsableEnv:
    python = root / "bin" / "python"
    return UsableEnv(python, root, manifest.key, how, manifest.packages, manifest.image, manifest.executable)


def _check_node(manifest: Manifest, progress: Progress) -> None:
    if manifest.image:
        return
    if not interpreter.is_there(manifest.executable):
        raise EnvironmentBuildError(
            f"environment {manifest.key} needs the interpreter {manifest.executable} (Python {manifest.version}), "
            f"which {socket.gethostname()} does not have: install it there, load it as a module, or build the "
            "environment with an interpreter on the shared file system (agent.python_binary)"
        )
    if interpreter.older_libc(manifest.libc):
        progress(
            f"Environment {manifest.key} was built with {manifest.libc}, which is newer than this node's: if a package "
            "cannot be loaded, stage the task on a machine like this one"
        )
