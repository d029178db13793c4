"""Environments of tasks: built once where there is a network, used everywhere else without one."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.config.settings import PackageSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import node_cache
from hpc_agent.envs.archive import ArchiveError
from hpc_agent.envs.env_request import EnvRequest
from hpc_agent.envs.interpreter import ImagePythonApi
from hpc_agent.envs.materialize import EnvMaterializer, UsableEnv
from hpc_agent.envs.requirements import ResolutionError, shown
from hpc_agent.envs.shared_cache import Failure, Manifest, Resolution, SharedCache
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.git_credentials import GitCredential
from hpc_agent.redact import without_secrets

Progress = Callable[[str], None]

FRESH = timedelta(minutes=10)
"""How long a resolution is taken for current. The rule: where there is a network, requirements are resolved again,
so that an unpinned package gets the release it would get today; but the tasks of one sweep, staged one after another,
share one answer, as they would with uv's own ten-minute cache of the index. Offline the last answer holds for ever."""


@dataclass(frozen=True)
class StagedEnv:
    """``packages`` as ``pip freeze`` prints them; ``built``: whether this call built it; ``sha256`` of its archive;
    ``notes``: on what was asked for and is not used."""

    key: EnvKey
    packages: tuple[str, ...] = ()
    built: bool = False
    sha256: str = ""
    notes: tuple[str, ...] = ()


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
        foreign: ImagePythonApi | None = None,
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
            shared = EnvironmentBuildError(failure.error)
            shared.retryable = failure.passes
            raise shared
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

    def use(
        self, wanted: EnvKey | EnvRequest, progress: Progress, *, task: str = "<task id>", sha256: str = ""
    ) -> UsableEnv:
        """The environment, ready to run on this machine. Never uses the network. ``task`` is for the message;
        ``sha256``: of the archive that was staged, where that is known.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, is damaged, or cannot run here.
        """
        key = self.find(wanted, task=task) if isinstance(wanted, EnvRequest) else wanted
        manifest = self._published(key)
        if manifest is None:
            raise EnvironmentBuildError(f"environment {key} is not in the cache {self._shared.root}: {_remedy(task)}")
        if sha256 and sha256 != manifest.sha256:
            raise EnvironmentBuildError(
                f"environment {key} in the cache {self._shared.root} is another archive than the one that was staged "
                "for this task: it was built again, or somebody replaced it; enqueue the task again"
            )
        try:
            return EnvMaterializer(self._shared, self._scratch, self._clock, mount=self._mount).open(manifest, progress)
        except ArchiveError as error:
            self._shared.set_aside(key)
            raise EnvironmentBuildError(f"environment {key} is damaged ({error}): {_remedy(task)}") from error

    def lock(
        self, request: EnvRequest, progress: Progress, *, source_root: Path | None, foreign: ImagePythonApi | None
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
            node_cache.unpack_to(self._shared.archive(key), into, manifest.sha256)
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
        return _staged(manifest, resolution.notes) if manifest else None

    def _published(self, key: EnvKey) -> Manifest | None:
        """The manifest, if the environment is there whole; a damaged one is taken out of the way."""
        try:
            manifest = self._shared.manifest(key)
        except file_records.CorruptFileError:
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
        foreign: ImagePythonApi | None,
        progress: Progress,
    ) -> StagedEnv:
        from hpc_agent.envs.builder import Builder  # needs the installers, of which a compute node has none

        folder = self._local_folder()
        try:
            builder = Builder(self._shared, folder, self._packages, self._clock, self._credentials, foreign)
            ensured = builder.ensure(request, source_root, progress, published=self._published)
            if self._mount:
                builder.ensure_image(ensured.manifest, progress)
        except EnvironmentBuildError as error:
            if isinstance(error, ResolutionError) and (earlier := self._earlier(digest, error, progress)):
                return earlier
            with contextlib.suppress(EnvironmentBuildError):
                words = without_secrets(str(error))
                self._shared.remember(digest, Failure(secrets.token_hex(8), words, error.retryable))
            raise
        resolution = Resolution(
            ensured.manifest.key, self._clock.now(), shown(request.lines.requirements), ensured.notes
        )
        try:
            self._shared.remember(digest, resolution)
        except EnvironmentBuildError as error:
            if ensured.built:
                raise
            progress(str(error))  # the key will do
        self._shared.note(resolution.key, use=False)
        return _staged(ensured.manifest, resolution.notes, built=ensured.built)

    def _earlier(self, digest: str, error: ResolutionError, progress: Progress) -> StagedEnv | None:
        """What the same words meant before: an index that is down must not stop what worked yesterday."""
        resolution = self._shared.resolution(digest)
        manifest = self._published(resolution.key) if resolution else None
        if resolution is None or manifest is None:
            return None
        progress(f"{error}; taking the environment that they meant on {resolution.resolved_at:%Y-%m-%d %H:%M} UTC")
        return _staged(manifest, resolution.notes)

    def _local_folder(self) -> Path:
        folder = file_records.user_scratch_dir(self._scratch) or file_records.user_scratch_dir(
            Path(tempfile.gettempdir())
        )
        if folder is None:
            raise EnvironmentBuildError(
                f"no folder to build in: {self._scratch} is not writable, or another user has taken our folder's name"
            )
        return folder


def _staged(manifest: Manifest, notes: tuple[str, ...], *, built: bool = False) -> StagedEnv:
    return StagedEnv(manifest.key, manifest.packages, built, manifest.sha256, notes)


def _remedy(task: str) -> str:
    return f"stage it where there is a network with `hpc-agent cache warm --id {task}`"


__all__ = ["FRESH", "EnvStore", "StagedEnv", "UsableEnv"]
