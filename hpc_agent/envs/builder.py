"""The online half: resolve, build in a private local folder, pack, publish."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_agent import file_records
from hpc_agent.clock import Clock
from hpc_agent.config.settings import PackageSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.envs import archive, build_steps, env_lock, interpreter, mounted, node_cache, pip_config, project_input
from hpc_agent.envs.archive import ArchiveError
from hpc_agent.envs.build_steps import build, installed
from hpc_agent.envs.env_lock import EnvLock, LockInput, key_of, key_parts
from hpc_agent.envs.env_request import EnvRequest
from hpc_agent.envs.installers import InstallContext, Installer, InstallerRunner
from hpc_agent.envs.interpreter import ImagePythonApi, Interpreter, Site, missing
from hpc_agent.envs.pip_installer import PipInstaller
from hpc_agent.envs.project import Project
from hpc_agent.envs.project_input import described
from hpc_agent.envs.requirements import shown
from hpc_agent.envs.shared_cache import ARCHIVE, LOCK, Manifest, SharedCache
from hpc_agent.envs.uv_installer import UvInstaller
from hpc_agent.errors import EnvironmentBuildError, ProcessError
from hpc_agent.git_credentials import GitCredential
from hpc_agent.lease import only_one
from hpc_agent.user_name import user_name

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Ensured:
    """A published environment; ``built``: now, by us. ``notes``: on what the task says and is not used."""

    manifest: Manifest
    built: bool
    notes: tuple[str, ...] = ()


class Builder:
    """Builds in ``folder``, a local folder of the user's own, and publishes in ``shared``.

    Raises:
        EnvironmentBuildError: there is no installer as configured.
    """

    def __init__(
        self,
        shared: SharedCache,
        folder: Path,
        packages: PackageSettings,
        clock: Clock,
        credentials: Sequence[GitCredential],
        foreign: ImagePythonApi | None = None,
    ) -> None:
        self._shared = shared
        self._folder = folder
        self._packages = packages
        self._clock = clock
        self._foreign = foreign
        self._sites: dict[Interpreter, Site] = {}
        self._tools = InstallerRunner(packages, folder, os.environ, credentials, foreign)
        self._installer = installer_for(self._tools)

    def ensure(
        self,
        request: EnvRequest,
        source_root: Path | None,
        progress: Progress,
        *,
        published: Callable[[EnvKey], Manifest | None],
    ) -> Ensured:
        """Resolve, and build unless that is published.

        Raises:
            EnvironmentBuildError: it cannot be resolved, built or stored.
        """
        base, wanted, locked = self._lock(request, source_root, progress)
        # A project of which no code is installed has the same environment at each commit.
        source = request.source if locked.is_built_here or request.lines.local else ""
        parts = key_parts(
            [*locked.lines, *locked.late],
            base,
            installer=self._packages.type,
            flags=shown(self._packages.extra_pip_install_flags),
            system_site=self._packages.system_site_packages,
            source=locked.own_code or source,
            image=request.image,
            site=self._site(base).folders,
        )
        key = key_of(parts)
        if manifest := published(key):
            return Ensured(manifest, False, locked.notes)
        with only_one(
            self._shared.leases / f"build-{key}",
            self._clock,
            done=lambda: published(key) is not None,
            waiting=lambda: progress(f"Waiting for another process that builds environment {key}"),
        ) as mine:
            if mine:
                progress(f"Building environment {key}: {len(locked.lines) + len(locked.late)} packages")
                self._build(key, parts, locked, base, request, wanted, source_root, progress)
        manifest = published(key)
        if manifest is None:
            raise EnvironmentBuildError(
                f"environment {key} was built and is gone again: is somebody pruning the cache?"
            )
        return Ensured(manifest, mine, locked.notes)

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
        with only_one(self._shared.leases / f"image-{key}", self._clock, done=done) as mine, self._workplace() as work:
            if mine:
                progress(f"Making an image of environment {key}")
                try:
                    archive.unpack(self._shared.archive(key), work, manifest.sha256)
                    self._shared.publish_image(key, lambda image: mounted.make(work, image))
                except (ProcessError, ArchiveError) as error:
                    raise EnvironmentBuildError(f"no image of environment {key} can be made: {error}") from error

    def lock(self, request: EnvRequest, source_root: Path | None, progress: Progress) -> tuple[str, ...]:
        """Lines that make an installer elsewhere install what the environment would hold, the indexes first.

        Raises:
            EnvironmentBuildError: it cannot be resolved.
        """
        _, wanted, locked = self._lock(request, source_root, progress)
        options = dict.fromkeys((*pip_config.load().lines, *self._tools.index_lines, *wanted.options, *locked.options))
        return (*options, *locked.lines, *locked.late)

    def _lock(
        self, request: EnvRequest, source_root: Path | None, progress: Progress
    ) -> tuple[Interpreter, LockInput, EnvLock]:
        base = self._base(request, progress)
        wanted = env_lock.prepare(request.lines, self._packages.post_packages, progress)
        present = self._site(base).packages
        wanted = replace(wanted, lines=missing(wanted.lines, present))
        if wanted.lines:
            progress(f"Resolving {len(wanted.lines)} requirements for {base.shown}")
        with self._workplace() as work:
            place = self._place(work, request, wanted, source_root)
            if request.project is None:
                locked = env_lock.resolve(request.lines, wanted, self._installer, base, place)
            else:
                locked = self._lock_project(request.project, request, wanted, base, place, progress)
        for note in locked.notes:
            progress(note)
        return base, wanted, replace(locked, lines=missing(locked.lines, present))

    def _place(self, work: Path, request: EnvRequest, wanted: LockInput, source_root: Path | None) -> InstallContext:
        root = source_root or work
        texts = described(root, request) if source_root else ()
        needs_git = env_lock.needs_git([*wanted.lines, *wanted.late, *request.lines.constraints], texts)
        return InstallContext(work, root, wanted.options, wanted.credentials, needs_git)

    def _lock_project(
        self,
        project: Project,
        request: EnvRequest,
        wanted: LockInput,
        base: Interpreter,
        place: InstallContext,
        progress: Progress,
    ) -> EnvLock:
        """Always by uv, whatever installs it: nothing else reads what uv projects say."""
        progress(f"Resolving what {project.path} asks for, for {base.shown}")
        uv = UvInstaller(self._tools)
        found = uv.resolve_project(project, wanted.lines, request.lines.constraints, base, place)
        locked = EnvLock(env_lock.normalise(found.lock, request.lines), wanted.late, found.indexes, notes=found.notes)
        own = project_input.look(project, request.imports_from, place.cwd, lambda: uv.build(project, base, place))
        if not own.digest:
            return replace(locked, notes=(*locked.notes, *([own.note] if own.note else [])))
        line = f"./{project.folder or '.'}"
        others = tuple(other for other in locked.lines if other != line)
        return replace(
            locked,
            lines=tuple(sorted((*others, line))),
            own_code="" if any(other.startswith("./") for other in others) else own.digest,
        )

    def _site(self, base: Interpreter) -> Site:
        """What the environment sees without having it: what that satisfies is not installed again."""
        if self._foreign:
            return Site(self._foreign.packages, self._foreign.site)
        if base not in self._sites:
            wanted = self._packages.system_site_packages
            self._sites[base] = interpreter.site_of(self._packages, base) if wanted else Site()
        return self._sites[base]

    def _base(self, request: EnvRequest, progress: Progress) -> Interpreter:
        if self._foreign is None:
            return interpreter.find(request.python, self._packages, progress)
        base = self._foreign.interpreter
        if request.python and request.python != base.minor:
            progress(f"The task asks for Python {request.python}, the image has {base.shown}: using that")
        return base

    def _build(
        self,
        key: EnvKey,
        parts: dict[str, object],
        locked: EnvLock,
        base: Interpreter,
        request: EnvRequest,
        wanted: LockInput,
        source_root: Path | None,
        progress: Progress,
    ) -> None:
        started = self._clock.monotonic()
        with self._workplace() as work:
            place = self._place(work, request, wanted, source_root)
            place = replace(place, options=tuple(dict.fromkeys((*place.options, *locked.options))))
            root = build(locked, base, self._installer, self._tools, place, self._site(base).folders)
            content = node_cache.write_inventory(root)
            progress(f"Packing environment {key}")
            with self._shared.publishing(key) as target:
                packed = self._pack(key, root, target)
                (target / LOCK).write_text(
                    "".join(f"{line}\n" for line in shown([*locked.lines, *locked.late])), encoding="utf-8"
                )
                manifest = Manifest(
                    key=key,
                    packages=installed(root) if locked.late else locked.packages,
                    parts={name: part for name, part in parts.items() if name != "lock"},
                    executable=base.executable,
                    version=".".join(map(str, base.version)),
                    libc=base.libc,
                    size=packed.size,
                    sha256=packed.sha256,
                    files=content.files,
                    unpacked=content.bytes,
                    built_at=self._clock.now(),
                    built_by=f"{user_name()}@{socket.gethostname()}",
                    seconds=round(self._clock.monotonic() - started, 3),
                    image=self._foreign.identity if self._foreign else "",
                )
                self._shared.write_manifest(target, manifest)
        progress(f"Environment {key} is in the cache: {packed.size / 1e6:.0f} MB")

    def _pack(self, key: EnvKey, root: Path, target: Path) -> archive.Packed:
        try:
            return archive.pack(root, target / ARCHIVE)
        except ProcessError as error:
            failure = EnvironmentBuildError(f"environment {key} cannot be packed: {error}")
            failure.retryable = True  # nothing that the task asks for
            raise failure from error

    @contextmanager
    def _workplace(self) -> Iterator[Path]:
        """A private empty folder on the local disk, gone afterwards.

        Raises:
            EnvironmentBuildError: the local disk is full or broken.
        """
        try:
            with build_steps.private_build_folder(self._folder / "build") as work:
                yield work
        except OSError as error:
            raise EnvironmentBuildError(
                f"the environment cannot be built in {self._folder}: {error.strerror or error}; "
                "give it room, or name another local folder with hpc.scratch_dir"
            ) from error


def installer_for(tools: InstallerRunner) -> Installer:
    """The installer that ``agent.package_manager.type`` names.

    Raises:
        EnvironmentBuildError: this version does not have it.
    """
    kind = tools.packages.type
    if kind in ("uv", "poetry"):  # poetry-core reads the project, uv installs it
        return UvInstaller(tools)
    if kind == "pip":
        return PipInstaller(tools)
    raise EnvironmentBuildError(
        f"agent.package_manager.type is {kind!r}: its environments cannot be moved, so the shared cache "
        "cannot hold them; use uv, pip or poetry"
    )
