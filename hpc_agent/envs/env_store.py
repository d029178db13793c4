"""Store of environments: built once where there is a network, used on all nodes without one."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import node_cache
from hpc_agent.envs.archive import ArchiveError
from hpc_agent.envs.interpreter import ImagePythonApi
from hpc_agent.envs.materialize import EnvMaterializer, UsableEnv
from hpc_agent.envs.shared_cache import Failure, Manifest, Resolution, SharedCache
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.git_credentials import GitCredential
from hpc_agent.progress import Progress
from hpc_agent.redact import without_secrets

if TYPE_CHECKING:  # a node that only opens what was staged does not wait for them
    from hpc_agent.envs.builder import Builder
    from hpc_agent.envs.env_request import EnvRequest

FRESH = timedelta(minutes=10)
"""How long a resolution is current. With a network, requirements are resolved again, so that an unpinned package gets
today's release; but the tasks of one sweep, staged one after another, share one resolution, as they would with uv's own
ten-minute cache of the index. Offline the last resolution is used however old it is."""


class StagedEnv(msgspec.Struct, frozen=True):
    """Environment in the shared cache. ``packages`` as ``pip freeze`` prints them; ``built``: by this call; ``sha256``:
    of its archive; ``notes``: what was requested and is ignored, in sentences."""

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
        image_python: ImagePythonApi | None = None,
    ) -> StagedEnv:
        """Make sure that the environment is in the shared cache. May use the network and take minutes.

        ``source_root``: a checkout of the task's repository, needed where ``request.needs_source``.
        ``image_python``: of the image whose identity is ``request.image``.

        Raises:
            EnvironmentBuildError: it cannot be resolved, built or stored.
        """
        from hpc_agent.lease import only_one  # imports psutil, which a compute node does not need

        if request.needs_source and source_root is None:
            raise EnvironmentBuildError(
                f"the requirements {', '.join(request.lines.local)} are built from the task's repository, "
                "which is not checked out here"
            )
        digest = request.digest(self._packages)
        if staged := self._fresh(digest):
            self._shared.uses.record_staged(staged.key)
            return staged
        before = self._shared.failure(digest)

        def make() -> StagedEnv:
            try:
                return self._stage(request, digest, source_root, image_python, progress)
            except OSError as error:
                raise self._shared.storage_error(error) from error

        def is_settled() -> bool:
            return self._shared.failure(digest) != before or self._fresh(digest) is not None

        try:
            with only_one(
                self._shared.leases / f"request-{digest}",
                self._clock,
                done=is_settled,
                waiting=lambda: progress("Waiting for another process that prepares the same environment"),
            ) as acquired:
                if acquired:
                    return make()
        except OSError as error:
            # A read-only cache may still have the environment.
            progress(f"The cache {self._shared.root} cannot be written to: {error.strerror or error}")
            return make()
        failure = self._shared.failure(digest)
        if failure and failure != before:
            # Fifty tasks of one sweep must not fail one after another, each after minutes of compiling.
            shared = EnvironmentBuildError(failure.error)
            shared.retryable = failure.transient
            raise shared
        return self._fresh(digest) or make()

    def find(self, request: EnvRequest, *, task: str = "<task id>") -> EnvKey:
        """Key of the environment that the request had when it was last staged. No network. ``task``: for messages.

        Raises:
            EnvironmentBuildError: it was never staged; the message has the command that stages it.
        """
        digest = request.digest(self._packages)
        resolution = self._shared.resolution(digest)
        if resolution is None:
            raise EnvironmentBuildError(
                f"no environment for these requirements (request {digest}) is in the cache {self._shared.root}: "
                f"{_staging_hint(task)}"
            )
        return resolution.key

    def use(
        self, env: EnvKey | EnvRequest, progress: Progress, *, task: str = "<task id>", sha256: str = ""
    ) -> UsableEnv:
        """Make the environment ready to run on this machine. No network. ``task``: for the message;
        ``sha256``: of the archive that was staged, where that is known.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, is damaged, or cannot run here.
        """
        key = EnvKey(env) if isinstance(env, str) else self.find(env, task=task)
        manifest = self._published(key)
        if manifest is None:
            raise EnvironmentBuildError(
                f"environment {key} is not in the cache {self._shared.root}: {_staging_hint(task)}"
            )
        if sha256 and sha256 != manifest.sha256:
            raise EnvironmentBuildError(
                f"environment {key} in the cache {self._shared.root} is another archive than the one that was staged "
                "for this task: it was built again or replaced since; enqueue the task again"
            )
        try:
            return EnvMaterializer(self._shared, self._scratch, self._clock, mount=self._mount).open(manifest, progress)
        except ArchiveError as error:
            self._shared.discard(key)
            raise EnvironmentBuildError(f"environment {key} is damaged ({error}): {_staging_hint(task)}") from error

    def lock(
        self, request: EnvRequest, progress: Progress, *, source_root: Path | None, image_python: ImagePythonApi | None
    ) -> tuple[str, ...]:
        """Exact requirement lines with their indexes, for an installation elsewhere.

        Raises:
            EnvironmentBuildError: they cannot be resolved.
        """
        builder = self._builder(request, self._local_folder(), image_python)
        return builder.lock(request, source_root, progress)

    def copy(self, key: EnvKey, into: Path) -> tuple[str, ...]:
        """Unpack a writable copy of an environment to the new folder ``into``; returns its packages.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, is damaged, or the disk is full.
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

    def _fresh(self, digest: str) -> StagedEnv | None:
        """The environment staged for the same request within ``FRESH``."""
        resolution = self._shared.resolution(digest)
        if resolution is None or self._clock.now() - resolution.resolved_at > FRESH:
            return None
        manifest = self._published(resolution.key)
        return _staged_env(manifest, resolution.notes) if manifest else None

    def _published(self, key: EnvKey) -> Manifest | None:
        """The manifest of a complete environment; a damaged one is discarded."""
        try:
            manifest = self._shared.manifest(key)
        except file_records.CorruptFileError:
            manifest = None
            self._shared.discard(key)
        if manifest and not self._shared.is_complete(manifest):
            self._shared.discard(key)
            return None
        return manifest

    def _stage(
        self,
        request: EnvRequest,
        digest: str,
        source_root: Path | None,
        image_python: ImagePythonApi | None,
        progress: Progress,
    ) -> StagedEnv:
        # It imports packaging, which a compute node does not need.
        from hpc_agent.envs.requirements import ResolutionError, redacted

        folder = self._local_folder()
        try:
            builder = self._builder(request, folder, image_python)
            ensured = builder.ensure(request, source_root, progress, published=self._published)
            if self._mount and not ensured.manifest.conda:
                builder.ensure_image(ensured.manifest, progress)
        except EnvironmentBuildError as error:
            if isinstance(error, ResolutionError) and (earlier := self._previous(digest, error, progress)):
                return earlier
            with contextlib.suppress(EnvironmentBuildError):
                message = without_secrets(str(error))
                self._shared.write_outcome(digest, Failure(secrets.token_hex(8), message, error.retryable))
            raise
        resolution = Resolution(
            ensured.manifest.key, self._clock.now(), redacted(request.lines.requirements), ensured.notes
        )
        try:
            self._shared.write_outcome(digest, resolution)
        except EnvironmentBuildError as error:
            if ensured.built:
                raise
            progress(str(error))  # not needed for this task
        self._shared.uses.record_staged(resolution.key)
        return _staged_env(ensured.manifest, resolution.notes, built=ensured.built)

    def _builder(self, request: EnvRequest, folder: Path, image_python: ImagePythonApi | None) -> Builder:
        # They import the installers, which a compute node does not need.
        from hpc_agent.envs.builder import Builder
        from hpc_agent.envs.conda_builder import CondaBuilder

        kind = CondaBuilder if request.conda else Builder
        return kind(self._shared, folder, self._packages, self._clock, self._credentials, image_python)

    def _previous(self, digest: str, error: EnvironmentBuildError, progress: Progress) -> StagedEnv | None:
        """The last environment of the same request: an index that is down must not stop what worked yesterday."""
        resolution = self._shared.resolution(digest)
        manifest = self._published(resolution.key) if resolution else None
        if resolution is None or manifest is None:
            return None
        progress(f"{error}; using the environment that was resolved on {resolution.resolved_at:%Y-%m-%d %H:%M} UTC")
        return _staged_env(manifest, resolution.notes)

    def _local_folder(self) -> Path:
        folder = file_records.user_scratch_dir(self._scratch) or file_records.user_scratch_dir(
            Path(tempfile.gettempdir())
        )
        if folder is None:
            raise EnvironmentBuildError(
                f"no folder for building: {self._scratch} is not writable, or another user owns a folder of that name"
            )
        return folder


def _staged_env(manifest: Manifest, notes: tuple[str, ...], *, built: bool = False) -> StagedEnv:
    return StagedEnv(manifest.key, manifest.packages, built, manifest.sha256, notes)


def _staging_hint(task: str) -> str:
    return f"stage it where there is a network with `hpc-agent cache warm --id {task}`"


__all__ = ["FRESH", "EnvStore", "StagedEnv", "UsableEnv"]
