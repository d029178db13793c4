"""Builder of environments: resolve, build in a private local folder, pack, publish. Uses the network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hpc_agent import file_records
from hpc_agent.access import user_name
from hpc_agent.clock import Clock
from hpc_agent.config.clearml_settings import PackageSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import archive, build_steps, env_lock, interpreter, mounted, node_cache, pip_config, project_input
from hpc_agent.envs.archive import ArchiveError
from hpc_agent.envs.build_steps import build, installed
from hpc_agent.envs.env_key import key_of, key_parts
from hpc_agent.envs.env_lock import EnvLock, LockInput
from hpc_agent.envs.env_request import EnvRequest
from hpc_agent.envs.installers import InstallContext, Installer, InstallerRunner
from hpc_agent.envs.interpreter import ImagePythonApi, Interpreter, Site, unmet
from hpc_agent.envs.pip_installer import PipInstaller
from hpc_agent.envs.project import Project
from hpc_agent.envs.project_input import project_texts
from hpc_agent.envs.requirements import redacted
from hpc_agent.envs.shared_cache import ARCHIVE, LOCK, Manifest, SharedCache
from hpc_agent.envs.uv_installer import UvInstaller
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.git_credentials import GitCredential
from hpc_agent.lease import only_one
from hpc_agent.progress import Progress


class EnsuredEnv(msgspec.Struct, frozen=True):
    """A published environment. ``built``: by this call. ``notes``: what the task requests and is ignored."""

    manifest: Manifest
    built: bool
    notes: tuple[str, ...] = ()


class BuiltWith(msgspec.Struct, frozen=True):
    """What an environment was built with, as its manifest says it."""

    packages: tuple[str, ...]
    version: str
    executable: str = ""
    libc: str = ""
    image: str = ""
    conda: bool = False


class Builder:
    """Builds in ``folder``, a local folder of the user's own, and publishes in ``shared``.

    Raises:
        EnvironmentBuildError: the configured installer does not exist.
    """

    def __init__(
        self,
        shared: SharedCache,
        folder: Path,
        packages: PackageSettings,
        clock: Clock,
        credentials: Sequence[GitCredential],
        image_python: ImagePythonApi | None = None,
    ) -> None:
        self._shared = shared
        self._folder = folder
        self._packages = packages
        self._clock = clock
        self._image_python = image_python
        self._sites: dict[Interpreter, Site] = {}
        self._runner = InstallerRunner(packages, folder, os.environ, credentials, image_python)
        self._installer = installer_for(self._runner)

    def ensure(
        self,
        request: EnvRequest,
        source_root: Path | None,
        progress: Progress,
        *,
        published: Callable[[EnvKey], Manifest | None],
    ) -> EnsuredEnv:
        """Resolve, and build unless the result is published already.

        Raises:
            EnvironmentBuildError: it cannot be resolved, built or stored.
        """
        base, lock_input, locked = self._lock(request, source_root, progress)
        # Without installed code of its own, a project has the same environment at each commit.
        source = request.source if locked.is_built_here or request.lines.local else ""
        parts = key_parts(
            [*locked.lines, *locked.post_packages],
            base,
            installer=self._packages.type,
            flags=redacted(self._packages.extra_pip_install_flags),
            system_site=self._packages.system_site_packages,
            source=locked.own_code or source,
            image=request.image,
            site=self._visible_site(base).folders,
        )
        key = key_of(parts)

        def build() -> None:
            progress(f"Building environment {key}: {len(locked.lines) + len(locked.post_packages)} packages")
            self._build(key, parts, locked, base, request, lock_input, source_root, progress)

        return self._build_once(key, build, progress, published, locked.notes)

    def _build_once(
        self,
        key: EnvKey,
        build: Callable[[], None],
        progress: Progress,
        published: Callable[[EnvKey], Manifest | None],
        notes: tuple[str, ...],
    ) -> EnsuredEnv:
        """``build`` and publish, unless another process has done or is doing it.

        Raises:
            EnvironmentBuildError: it cannot be built or stored.
        """
        if manifest := published(key):
            return EnsuredEnv(manifest, False, notes)
        with only_one(
            self._shared.leases / f"build-{key}",
            self._clock,
            done=lambda: published(key) is not None,
            waiting=lambda: progress(f"Waiting for another process that builds environment {key}"),
        ) as acquired:
            if acquired:
                build()
        manifest = published(key)
        if manifest is None:
            raise EnvironmentBuildError(
                f"environment {key} was built and has been removed since: does another process prune the cache?"
            )
        return EnsuredEnv(manifest, acquired, notes)

    def ensure_image(self, manifest: Manifest, progress: Progress) -> None:
        """Make sure that a published environment can be mounted too, where this machine can make images.

        Raises:
            EnvironmentBuildError: the shared folder is full or not writable, or mksquashfs failed.
        """

        key = manifest.key

        def done() -> bool:
            return file_records.exists_uncached(self._shared.image(key))

        if done() or not mounted.can_make():
            return
        with (
            only_one(self._shared.leases / f"image-{key}", self._clock, done=done) as acquired,
            self._build_folder() as work,
        ):
            if acquired:
                progress(f"Making an image of environment {key}")
                try:
                    archive.unpack(self._shared.archive(key), work, manifest.sha256)
                    self._shared.publish_image(key, lambda image: mounted.make(work, image))
                except (ProcessError, ArchiveError) as error:
                    raise EnvironmentBuildError(f"no image of environment {key} can be made: {error}") from error

    def lock(self, request: EnvRequest, source_root: Path | None, progress: Progress) -> tuple[str, ...]:
        """Requirement lines with the environment's exact content, for an installation elsewhere; indexes first.

        Raises:
            EnvironmentBuildError: it cannot be resolved.
        """
        _, lock_input, locked = self._lock(request, source_root, progress)
        options = dict.fromkeys(
            (*pip_config.load().lines, *self._runner.index_lines, *lock_input.options, *locked.options)
        )
        return (*options, *locked.lines, *locked.post_packages)

    def _lock(
        self, request: EnvRequest, source_root: Path | None, progress: Progress
    ) -> tuple[Interpreter, LockInput, EnvLock]:
        base = self._interpreter(request, progress)
        lock_input = env_lock.prepare_input(request.lines, self._packages.post_packages, progress)
        present = self._visible_site(base).packages
        lock_input = replace(lock_input, lines=unmet(lock_input.lines, present))
        if lock_input.lines:
            progress(f"Resolving {len(lock_input.lines)} requirements for {base.description}")
        with self._build_folder() as work:
            context = self._install_context(work, request, lock_input, source_root)
            if request.project is None:
                locked = env_lock.resolve(request.lines, lock_input, self._installer, base, context)
            else:
                locked = self._lock_project(request.project, request, lock_input, base, context, progress)
        for note in locked.notes:
            progress(note)
        return base, lock_input, replace(locked, lines=unmet(locked.lines, present))

    def _install_context(
        self, work: Path, request: EnvRequest, lock_input: LockInput, source_root: Path | None
    ) -> InstallContext:
        root = source_root or work
        texts = project_texts(root, request) if source_root else ()
        needs_git = env_lock.needs_git(
            [*lock_input.lines, *lock_input.post_packages, *request.lines.constraints], texts
        )
        return InstallContext(work, root, lock_input.options, lock_input.credentials, needs_git)

    def _lock_project(
        self,
        project: Project,
        request: EnvRequest,
        lock_input: LockInput,
        base: Interpreter,
        context: InstallContext,
        progress: Progress,
    ) -> EnvLock:
        """Resolve a project with uv, whichever installer is configured: only uv reads its tables."""
        progress(f"Resolving what {project.path} asks for, for {base.description}")
        uv = UvInstaller(self._runner)
        found = uv.resolve_project(project, lock_input.lines, request.lines.constraints, base, context)
        locked = EnvLock(
            env_lock.normalise(found.lock, request.lines), lock_input.post_packages, found.indexes, notes=found.notes
        )
        own = project_input.own_package_of(
            project, request.imports_from, context.cwd, lambda: uv.build(project, base, context)
        )
        if not own.digest:
            return replace(locked, notes=(*locked.notes, *([own.note] if own.note else [])))
        line = f"./{project.folder or '.'}"
        others = tuple(other for other in locked.lines if other != line)
        return replace(
            locked,
            lines=tuple(sorted((*others, line))),
            own_code="" if any(other.startswith("./") for other in others) else own.digest,
        )

    def _visible_site(self, base: Interpreter) -> Site:
        """Packages that the environment sees from outside; what they satisfy is not installed again."""
        if self._image_python:
            return Site(self._image_python.packages, self._image_python.site)
        if base not in self._sites:
            sees_system_packages = self._packages.system_site_packages
            self._sites[base] = interpreter.site_of(self._packages, base) if sees_system_packages else Site()
        return self._sites[base]

    def _interpreter(self, request: EnvRequest, progress: Progress) -> Interpreter:
        if self._image_python is None:
            return interpreter.find(request.python, self._packages, progress)
        base = self._image_python.interpreter
        if request.python and request.python != base.minor:
            progress(f"The task asks for Python {request.python}, the image has {base.description}: using that")
        return base

    def _build(
        self,
        key: EnvKey,
        parts: dict[str, object],
        locked: EnvLock,
        base: Interpreter,
        request: EnvRequest,
        lock_input: LockInput,
        source_root: Path | None,
        progress: Progress,
    ) -> None:
        started = self._clock.monotonic()
        with self._build_folder() as work:
            context = self._install_context(work, request, lock_input, source_root)
            context = replace(context, options=tuple(dict.fromkeys((*context.options, *locked.options))))
            root = build(locked, base, self._installer, self._runner, context, self._visible_site(base).folders)
            built_with = BuiltWith(
                packages=installed(root) if locked.post_packages else locked.packages,
                version=".".join(map(str, base.version)),
                executable=base.executable,
                libc=base.libc,
                image=self._image_python.identity if self._image_python else "",
            )
            self._publish(key, parts, root, [*locked.lines, *locked.post_packages], built_with, started, progress)

    def _publish(
        self,
        key: EnvKey,
        parts: dict[str, object],
        root: Path,
        lock: Sequence[str],
        built_with: BuiltWith,
        started: float,
        progress: Progress,
    ) -> None:
        """Pack the environment at ``root``, whose building began at ``started``, and put it into the shared cache."""
        content = node_cache.write_inventory(root)
        progress(f"Packing environment {key}")
        with self._shared.publishing(key) as target:
            packed = self._pack(key, root, target)
            (target / LOCK).write_text("".join(f"{line}\n" for line in redacted(lock)), encoding="utf-8")
            manifest = Manifest(
                key=key,
                packages=built_with.packages,
                parts={name: part for name, part in parts.items() if name != "lock"},
                executable=built_with.executable,
                version=built_with.version,
                libc=built_with.libc,
                size=packed.size,
                sha256=packed.sha256,
                files=content.files,
                unpacked=content.bytes,
                built_at=self._clock.now(),
                built_by=f"{user_name()}@{socket.gethostname()}",
                seconds=round(self._clock.monotonic() - started, 3),
                image=built_with.image,
                conda=built_with.conda,
            )
            self._shared.write_manifest(target, manifest)
        progress(f"Environment {key} is in the cache: {packed.size / 1e6:.0f} MB")

    def _pack(self, key: EnvKey, root: Path, target: Path) -> archive.PackedArchive:
        try:
            return archive.pack(root, target / ARCHIVE)
        except ProcessError as error:
            failure = EnvironmentBuildError(f"environment {key} cannot be packed: {error}")
            failure.retryable = True  # not caused by the task
            raise failure from error

    @contextmanager
    def _build_folder(self) -> Iterator[Path]:
        """Context manager of a private empty folder on the local disk.

        Raises:
            EnvironmentBuildError: the local disk is full or broken.
        """
        try:
            with build_steps.private_build_folder(self._folder / "build") as work:
                yield work
        except OSError as error:
            raise EnvironmentBuildError(
                f"the environment cannot be built in {self._folder}: {error.strerror or error}; "
                "free space there, or set hpc.scratch_dir to another local folder"
            ) from error


def installer_for(runner: InstallerRunner) -> Installer:
    """The installer of pip's packages that ``agent.package_manager.type`` means."""
    kind = runner.packages.type
    if kind in ("uv", "poetry", "conda"):  # poetry-core reads the project, uv installs it, and what is not conda's
        return UvInstaller(runner)
    return PipInstaller(runner)
