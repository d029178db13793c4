"""Staging of a task's source and environment (with a network), and their use on a node (without one)."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from hpc_agent.clock import Clock
from hpc_agent.config.clearml_settings import GitSettings
from hpc_agent.config.settings import AllSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.domain.ids import TaskId
from hpc_agent.domain.task import Task, TaskScript
from hpc_agent.envs import interpreter
from hpc_agent.envs.env_store import EnvStore, StagedEnv, UsableEnv
from hpc_agent.errors import ContainerUnavailableError, HpcAgentError, SourceError
from hpc_agent.logs import EventLog
from hpc_agent.progress import Progress
from hpc_agent.redact import without_credentials, without_secrets
from hpc_agent.retry import NETWORK, retry
from hpc_agent.sources import layout
from hpc_agent.sources.git import configured_credentials, named_hosts
from hpc_agent.sources.layout import Origin, StagedSource
from hpc_agent.sources.source_store import SourceStore
from hpc_agent.sources.workspace import Workspace, entry_point_of

if TYPE_CHECKING:  # a node that only opens what was staged waits for neither
    from hpc_agent.envs.env_request import EnvRequest
    from hpc_agent.image_resolver import ImageResolver, ResolvedContainer

log = EventLog("staging")
T = TypeVar("T")

_SKIP = "CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL"
"""Among a task's container arguments: the image's Python runs it as it is."""


class StagedTask(msgspec.Struct, frozen=True):
    """Keys of a task's source and environment in the shared cache; written as ``stage.json`` in the run directory."""

    source: StagedSource
    env: EnvKey | None
    """None for tasks that run without Python."""
    env_sha256: str = ""
    """Checksum of the environment's archive when it was staged; empty if unknown."""
    notes: tuple[str, ...] = ()
    """Sentences for the task's log on packages that it requests and that are ignored."""
    image: str = ""
    """Name of the image's file that was fetched for the task; empty if there is none."""


def retry_staging(action: Callable[[], T], progress: Progress, clock: Clock) -> T:
    """Retry while a git remote or a package index is unreachable, and a few times after an unexpected error.

    Raises:
        SourceError, EnvironmentBuildError: it stayed unreachable, or the error is of another kind. No other error is
            raised, so that the task always gets a message.
    """
    unexpected = 0

    def tried() -> T:
        nonlocal unexpected
        try:
            return wrap_unexpected(action)
        except UnexpectedStagingError as error:
            unexpected += 1
            error.retryable = unexpected < _UNEXPECTED_TRIES
            progress(str(error))
            raise
        except HpcAgentError as error:
            if error.retryable:
                progress(f"Retrying for up to {NETWORK.seconds / 60:.0f} minutes: {error}")
            raise

    return retry(tried, NETWORK, clock)


_UNEXPECTED_TRIES = 3
"""Tries after errors that no part of this program expects."""


class UnexpectedStagingError(SourceError):
    """Error in staging that no part of this program expects."""


def wrap_unexpected(action: Callable[[], T]) -> T:
    """Call ``action`` and return its result.

    Raises:
        HpcAgentError: the action's own, or an ``UnexpectedStagingError`` in place of any other exception.
    """
    try:
        return action()
    except HpcAgentError:
        raise
    except Exception as error:
        log.error("staging.unexpected_error", trace=True)
        raise _unexpected(error) from error


def _unexpected(error: Exception) -> UnexpectedStagingError:
    text = without_secrets(str(error)).strip()[:500]
    description = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return UnexpectedStagingError(
        f"the task cannot be prepared: {description}; this is either something in the task that hpc-agent does not "
        "expect, or a bug in hpc-agent, whose log has the details"
    )


class TaskStager:
    """Stages and opens tasks' sources and environments; one per daemon or job.

    ``share``: what is staged is for other nodes, without a network.
    """

    def __init__(self, settings: AllSettings, clock: Clock, *, share: bool = True) -> None:
        # A task may name any host; without git_host only hosts in the account's own git configuration get the password.
        known = named_hosts() if settings.git.password and not settings.git.host else frozenset()
        self._sources = SourceStore(settings.hpc.cache, settings.git, clock, known)
        self._envs = EnvStore(
            settings.hpc.cache,
            settings.hpc.scratch,
            settings.python_packages,
            clock,
            configured_credentials(settings.git, known),
            mount=settings.hpc.envs.mount,
        )
        self._packages = settings.python_packages
        self._settings = settings
        self._clock = clock
        self._share = share
        self._agent = settings.agent
        self.warnings = _credential_warnings(settings.git, known)
        """Warnings about settings, for the user who starts a daemon."""

    @property
    def _has_containers(self) -> bool:
        return self._settings.hpc.container.runtime != "none"

    @cached_property
    def _images(self) -> ImageResolver:
        from hpc_agent.image_resolver import ImageResolver

        return ImageResolver(self._settings, self._clock)

    def stage(self, task: Task, progress: Progress) -> StagedTask:
        """Bring everything the task needs into the shared cache. Uses the network where something is missing.

        Raises:
            SourceError, EnvironmentBuildError, ContainerError: it cannot be staged.
        """
        return self.stage_environment(task, self.fetch(task, progress), progress)

    def fetch(self, task: Task, progress: Progress) -> StagedSource:
        """Stage the task's source: the part of ``stage`` that waits for other machines.

        Raises:
            SourceError: it cannot be had.
        """
        task = self._with_forced_entry(task)
        return self._forced_source() or self._sources.stage(task.script, progress)

    def stage_environment(self, task: Task, source: StagedSource, progress: Progress) -> StagedTask:
        """Stage image and environment: the part of ``stage`` that keeps this machine busy.

        Raises:
            SourceError, EnvironmentBuildError, ContainerError: they cannot be had.
        """
        task = self._with_forced_entry(task)
        container = self._unless_unavailable(lambda: self.stage_image(task, progress), progress)
        image = self._images.fetched_file(container.choice) if container else ""
        return replace(self._stage_packages(task, source, container, progress), image=image)

    def _stage_packages(
        self, task: Task, source: StagedSource, container: ResolvedContainer | None, progress: Progress
    ) -> StagedTask:
        image = container.python if container else None
        request = self._request(task, source, container)
        if request is None:
            return StagedTask(source, None)
        for note in request.notes:
            progress(note)
        if not request.needs_source:
            return _staged_task(source, self._envs.stage(request, progress, image_python=image), request)
        with tempfile.TemporaryDirectory(prefix="hpc-agent-stage-") as folder:
            root = self._sources.checkout(task.script, source, Path(folder), progress).root
            return _staged_task(
                source, self._envs.stage(request, progress, source_root=root, image_python=image), request
            )

    def find(self, task: Task, progress: Progress = lambda _: None) -> StagedTask:
        """The result of an earlier ``stage`` in the shared cache. No network.

        Raises:
            SourceError, EnvironmentBuildError, ContainerError: something is missing; the sentence names it and the
                command that stages it.
        """
        task = self._with_forced_entry(task)
        source = self._forced_source() or self._sources.find(task.script)
        if source is None:
            repository = without_credentials(task.script.repository)
            raise SourceError(
                f"the repository {repository} is not in the shared cache at the commit that this task wants: "
                f"stage it where there is a network with `hpc-agent cache warm --id {task.id}`"
            )
        container = self._unless_unavailable(lambda: self.find_container(task, progress), progress)
        request = self._request(task, source, container)
        if request is None:
            return StagedTask(source, None)
        return StagedTask(source, self._envs.find(request, task=task.id), notes=request.notes)

    def _forced_source(self) -> StagedSource | None:
        folder = self._agent.force_code_dir
        return StagedSource(Origin.FOLDER, name=str(folder)) if folder else None

    def _with_forced_entry(self, task: Task) -> Task:
        """The task with the entry point that this site's settings prescribe.

        Raises:
            SourceError: a field of it is too long or cannot be encoded.
        """
        layout.check_limits(task.script)
        if not self._agent.force_exec_script:
            return task
        folder, _, file = self._agent.force_exec_script.rpartition(":")
        return msgspec.structs.replace(
            task, script=msgspec.structs.replace(task.script, entry_point=file, working_dir=folder or ".")
        )

    def uses_container(self, task: Task) -> bool:
        """Whether the task runs in a container here.

        Raises:
            ContainerError: with arguments that are not the task's to give.
        """
        return self._has_containers and self._images.choose(task.container) is not None

    def find_container(self, task: Task, progress: Progress) -> ResolvedContainer | None:
        """The container that the task runs in; None if it runs on the node itself. No network.

        Raises:
            ContainerError: the image is not here, or its container not allowed.
        """
        choice = self._images.choose(task.container) if self._has_containers else None
        return self._images.find(choice, progress, task=task.id) if choice else None

    def check_out(self, task: Task, staged: StagedTask, into: Path, progress: Progress) -> Workspace:
        """The task's code below ``into``. No network.

        Raises:
            SourceError: it cannot be had.
        """
        workspace = self._sources.checkout(self._with_forced_entry(task).script, staged.source, into, progress)
        return replace(workspace, notes=(*workspace.notes, *staged.notes))

    def open(self, task: TaskId, staged: StagedTask, progress: Progress) -> UsableEnv | None:
        """The task's environment on this node. No network.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, or not whole.
        """
        if staged.env is None:
            return None
        return self._envs.use(staged.env, progress, task=task, sha256=staged.env_sha256)

    def stage_source(self, task: Task, progress: Progress) -> StagedTask:
        """Stage the source alone, without an environment.

        Raises:
            SourceError: it cannot be had.
        """
        return StagedTask(self.fetch(task, progress), None)

    def lock(
        self, task: Task, staged: StagedTask, progress: Progress, container: ResolvedContainer | None = None
    ) -> tuple[str, tuple[str, ...]]:
        """The Python that the task wants, and exact requirement lines for it. Uses the network.

        Raises:
            SourceError, EnvironmentBuildError: they cannot be resolved.
        """
        task = self._with_forced_entry(task)
        request = self._request(task, staged.source, container)
        image_python = container.python if container else None
        if request is None:
            return "", ()
        python = (
            image_python.interpreter if image_python else interpreter.find(request.python, self._packages, progress)
        )
        with tempfile.TemporaryDirectory(prefix="hpc-agent-stage-") as folder:
            root = None
            if request.needs_source:
                root = self._sources.checkout(task.script, staged.source, Path(folder), progress).root
            return python.executable, self._envs.lock(request, progress, source_root=root, image_python=image_python)

    def copy_env(self, staged: StagedTask, into: Path) -> tuple[str, ...]:
        """A copy of the environment in the new folder ``into``, which may be changed; returns its packages.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, or the disk is full.
        """
        return self._envs.copy(staged.env, into) if staged.env else ()

    def stage_image(self, task: Task, progress: Progress) -> ResolvedContainer | None:
        """The container that the task runs in, its image fetched if missing. Uses the network.

        Raises:
            ContainerError: it cannot be had.
        """
        choice = self._images.choose(task.container) if self._has_containers else None
        return self._images.stage(choice, progress, share=self._share) if choice else None

    def _unless_unavailable(
        self, get: Callable[[], ResolvedContainer | None], progress: Progress
    ) -> ResolvedContainer | None:
        """None if this node cannot run containers: compute nodes then have the image, and use our Python in it."""
        try:
            return get()
        except ContainerUnavailableError as error:
            if not self._share:
                raise
            progress(f"The task's image cannot be inspected here: {error}")
            return None

    def _request(self, task: Task, source: StagedSource, container: ResolvedContainer | None) -> EnvRequest | None:
        script = task.script
        if not entry_point_of(script).kind.needs_python and not script.requirements.pip:
            return None
        if self._packages.skip_install or (container and _SKIP in dict(container.choice.merged.environment)):
            return None
        from hpc_agent.envs.env_request import request_for

        files = self._sources.requirement_files(script, source)
        # A line of the task's own that pins it has precedence.
        extra = ("clearml",) if self._agent.force_task_init else ()
        request = request_for(script, files, self._packages, source=_source_identity(script, source), extra=extra)
        if request.conda:
            return request  # conda brings its own interpreter, into images too
        return replace(request, image=container.python.identity) if container and container.python else request


def _credential_warnings(git: GitSettings, known: Collection[str]) -> tuple[str, ...]:
    if not git.password or git.host:
        return ()
    hosts = ", ".join(sorted(known))
    where = f"only to {hosts}, which this account's git configuration names" if hosts else "to no host"
    return (
        f"agent.git_pass is set without agent.git_host: tasks may name any host, so it is sent {where}; set the host "
        "that it is for in agent.git_host (CLEARML_AGENT_GIT_HOST)",
    )


def _staged_task(source: StagedSource, env: StagedEnv, request: EnvRequest) -> StagedTask:
    return StagedTask(source, env.key, env.sha256, tuple(dict.fromkeys((*request.notes, *env.notes))))


def _source_identity(script: TaskScript, source: StagedSource) -> str:
    """Identity of the repository's content, uncommitted changes included."""
    return f"{source.commit}-{hashlib.sha256(script.diff.encode()).hexdigest()[:16]}"
