"""A task's source and environment together: staged where there is a network, opened where there is none."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hpc_agent.clock import Clock
from hpc_agent.config.settings import AllSettings, GitSettings
from hpc_agent.domain.env import EnvKey
from hpc_agent.domain.task import Task, TaskScript
from hpc_agent.envs import interpreter
from hpc_agent.envs.env_request import EnvRequest, request_for
from hpc_agent.envs.env_store import EnvStore, StagedEnv, UsableEnv
from hpc_agent.errors import ContainerUnavailableError, HpcAgentError, SourceError
from hpc_agent.image_resolver import ImageResolver, ResolvedContainer
from hpc_agent.logs import EventLog
from hpc_agent.redact import without_credentials, without_secrets
from hpc_agent.retry import NETWORK, retry
from hpc_agent.sources import layout
from hpc_agent.sources.git import configured_credentials, named_hosts
from hpc_agent.sources.layout import Origin, StagedSource
from hpc_agent.sources.source_store import SourceStore
from hpc_agent.sources.workspace import Workspace, entry_of

log = EventLog("staging")
Progress = Callable[[str], None]
T = TypeVar("T")

_SKIP = "CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL"
"""Among a task's container arguments: the image's Python runs it as it is."""


@dataclass(frozen=True)
class StagedTask:
    """What a job needs to find in the shared cache; travels as ``stage.json`` in the run directory."""

    source: StagedSource
    env: EnvKey | None
    """None for tasks that run without Python."""
    env_sha256: str = ""
    """Of the environment's archive as it was staged; empty where that is not known."""
    notes: tuple[str, ...] = ()
    """Sentences for the task's log on what it says about packages and is not used."""


def patiently(action: Callable[[], T], progress: Progress, clock: Clock) -> T:
    """Try again while a git remote or a package index is away, and a few times after what nobody foresaw.

    Raises:
        SourceError, EnvironmentBuildError: it stayed away for long, or the trouble is of another kind. No other error:
            whatever is wrong, the task ends with a sentence.
    """
    surprises = 0

    def told() -> T:
        nonlocal surprises
        try:
            return foreseen(action)
        except UnforeseenError as error:
            surprises += 1
            error.retryable = surprises < _SURPRISES
            progress(str(error))
            raise
        except HpcAgentError as error:
            if error.retryable:
                progress(f"Trying again for up to {NETWORK.seconds / 60:.0f} minutes: {error}")
            raise

    return retry(told, NETWORK, clock)


_SURPRISES = 3
"""So often is tried what fails in a way that no part of this program expects."""


class UnforeseenError(SourceError):
    """The task cannot be prepared, for a reason that no part of this program expects."""


def foreseen(action: Callable[[], T]) -> T:
    """What ``action`` returns.

    Raises:
        HpcAgentError: what it raised, or an ``UnforeseenError`` in place of anything else.
    """
    try:
        return action()
    except HpcAgentError:
        raise
    except Exception as error:
        log.error("staging failed unexpectedly", trace=True)
        raise _unforeseen(error) from error


def _unforeseen(error: Exception) -> UnforeseenError:
    words = without_secrets(str(error)).strip()[:500]
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return UnforeseenError(
        f"the task cannot be prepared: {said}; this is either something in the task that hpc-agent does not expect, or "
        "a fault of hpc-agent, whose log has more"
    )


class TaskStager:
    """One for each daemon or job. ``share``: what is staged is for other nodes, which have no network."""

    def __init__(self, settings: AllSettings, clock: Clock, *, share: bool = True) -> None:
        # Without git_host the hosts count that the account's own git knows: a task may name any.
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
        self._containment = ImageResolver(settings, clock)
        self._share = share
        self._agent = settings.agent
        self.remarks = _remarks(settings.git, known)
        """Sentences on settings that may not do what they seem to, for who starts a daemon."""

    def stage(self, task: Task, progress: Progress) -> StagedTask:
        """Bring everything the task needs into the shared cache. Uses the network where something is missing.

        Raises:
            SourceError, EnvironmentBuildError, ContainerError: it cannot be had; the sentence says why.
        """
        return self.stage_rest(task, self.fetch(task, progress), progress)

    def fetch(self, task: Task, progress: Progress) -> StagedSource:
        """The first part of ``stage``, which waits for other machines: the task's source.

        Raises:
            SourceError: it cannot be had.
        """
        task = self._as_wanted(task)
        return self._forced() or self._sources.stage(task.script, progress)

    def stage_rest(self, task: Task, source: StagedSource, progress: Progress) -> StagedTask:
        """The second part, which keeps this machine busy: image and environment.

        Raises:
            SourceError, EnvironmentBuildError, ContainerError: they cannot be had.
        """
        task = self._as_wanted(task)
        contained = self._unless_unavailable(lambda: self.stage_image(task, progress), progress)
        image = contained.python if contained else None
        request = self._request(task, source, contained)
        if request is None:
            return StagedTask(source, None)
        for note in request.notes:
            progress(note)
        if not request.needs_source:
            return _staged(source, self._envs.stage(request, progress, foreign=image), request)
        with tempfile.TemporaryDirectory(prefix="hpc-agent-stage-") as folder:
            root = self._sources.checkout(task.script, source, Path(folder), progress).root
            return _staged(source, self._envs.stage(request, progress, source_root=root, foreign=image), request)

    def find(self, task: Task, progress: Progress = lambda _: None) -> StagedTask:
        """What an earlier ``stage`` left in the shared cache. No network.

        Raises:
            SourceError, EnvironmentBuildError, ContainerError: something is missing; the sentence names it and the
                command that stages it.
        """
        task = self._as_wanted(task)
        source = self._forced() or self._sources.find(task.script)
        if source is None:
            repository = without_credentials(task.script.repository)
            raise SourceError(
                f"the repository {repository} is not in the shared cache at the commit that this task wants: "
                f"stage it where there is a network with `hpc-agent cache warm --id {task.id}`"
            )
        contained = self._unless_unavailable(lambda: self.contain(task, progress), progress)
        request = self._request(task, source, contained)
        if request is None:
            return StagedTask(source, None)
        return StagedTask(source, self._envs.find(request, task=task.id), notes=request.notes)

    def _forced(self) -> StagedSource | None:
        folder = self._agent.force_code_dir
        return StagedSource(Origin.FOLDER, name=str(folder.expanduser())) if folder else None

    def _as_wanted(self, task: Task) -> Task:
        """The task with the entry point that this site's settings force on it.

        Raises:
            SourceError: what it says is too long or no text.
        """
        layout.check(task.script)
        if not self._agent.force_exec_script:
            return task
        folder, _, file = self._agent.force_exec_script.rpartition(":")
        return replace(task, script=replace(task.script, entry_point=file, working_dir=folder or "."))

    def names_image(self, task: Task) -> bool:
        """Whether the task runs in a container here.

        Raises:
            ContainerError: with arguments that are not the task's to give.
        """
        return self._containment.choose(task.container) is not None

    def contain(self, task: Task, progress: Progress) -> ResolvedContainer | None:
        """What the task runs in on this node; None where that is the node itself. No network.

        Raises:
            ContainerError: the image is not here, or its container not allowed.
        """
        choice = self._containment.choose(task.container)
        return self._containment.find(choice, progress, task=task.id) if choice else None

    def check_out(self, task: Task, staged: StagedTask, into: Path, progress: Progress) -> Workspace:
        """The task's code below ``into``. No network.

        Raises:
            SourceError: it cannot be had.
        """
        workspace = self._sources.checkout(self._as_wanted(task).script, staged.source, into, progress)
        return replace(workspace, notes=(*workspace.notes, *staged.notes))

    def open(self, task: Task, staged: StagedTask, progress: Progress) -> UsableEnv | None:
        """The task's environment on this node. No network.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, or not whole.
        """
        if staged.env is None:
            return None
        return self._envs.use(staged.env, progress, task=task.id, sha256=staged.env_sha256)

    def stage_source(self, task: Task, progress: Progress) -> StagedTask:
        """As ``stage``, without an environment.

        Raises:
            SourceError: it cannot be had.
        """
        return StagedTask(self.fetch(task, progress), None)

    def lock(
        self, task: Task, staged: StagedTask, progress: Progress, contained: ResolvedContainer | None = None
    ) -> tuple[str, tuple[str, ...]]:
        """The Python that the task wants, and exact requirement lines for it. Uses the network.

        Raises:
            SourceError, EnvironmentBuildError: they cannot be resolved.
        """
        task = self._as_wanted(task)
        request = self._request(task, staged.source, contained)
        foreign = contained.python if contained else None
        if request is None:
            return "", ()
        python = foreign.interpreter if foreign else interpreter.find(request.python, self._packages, progress)
        with tempfile.TemporaryDirectory(prefix="hpc-agent-stage-") as folder:
            root = None
            if request.needs_source:
                root = self._sources.checkout(task.script, staged.source, Path(folder), progress).root
            return python.executable, self._envs.lock(request, progress, source_root=root, foreign=foreign)

    def copy_env(self, staged: StagedTask, into: Path) -> tuple[str, ...]:
        """A copy of the environment in the new folder ``into``, which may be changed; returns its packages.

        Raises:
            EnvironmentBuildError: it is not in the shared cache, or there is no room.
        """
        return self._envs.copy(staged.env, into) if staged.env else ()

    def stage_image(self, task: Task, progress: Progress) -> ResolvedContainer | None:
        """What the task runs in, fetched where it is missing. Uses the network.

        Raises:
            ContainerError: it cannot be had.
        """
        choice = self._containment.choose(task.container)
        return self._containment.stage(choice, progress, share=self._share) if choice else None

    def _unless_unavailable(
        self, get: Callable[[], ResolvedContainer | None], progress: Progress
    ) -> ResolvedContainer | None:
        """A login node need not run containers; its compute nodes then have the image, and use our Python in it."""
        try:
            return get()
        except ContainerUnavailableError as error:
            if not self._share:
                raise
            progress(f"Nothing is known about the task's image here: {error}")
            return None

    def _request(self, task: Task, source: StagedSource, contained: ResolvedContainer | None) -> EnvRequest | None:
        script = task.script
        if not entry_of(script).kind.needs_python and not script.requirements.pip:
            return None
        if self._packages.skip_install or (contained and _SKIP in dict(contained.choice.merged.environment)):
            return None
        files = self._sources.requirement_files(script, source)
        # A line of the task's own that pins it counts more.
        also = ("clearml",) if self._agent.force_task_init else ()
        request = request_for(script, files, self._packages, source=_identity(script, source), also=also)
        return replace(request, image=contained.python.identity) if contained and contained.python else request


def _remarks(git: GitSettings, known: Collection[str]) -> tuple[str, ...]:
    if not git.password or git.host:
        return ()
    hosts = ", ".join(sorted(known))
    where = f"only to {hosts}, which this account's git configuration names" if hosts else "to no host"
    return (
        f"agent.git_pass is set without agent.git_host: tasks may name any host, so it goes {where}; name the host "
        "that it is for in agent.git_host (CLEARML_AGENT_GIT_HOST)",
    )


def _staged(source: StagedSource, env: StagedEnv, request: EnvRequest) -> StagedTask:
    return StagedTask(source, env.key, env.sha256, tuple(dict.fromkeys((*request.notes, *env.notes))))


def _identity(script: TaskScript, source: StagedSource) -> str:
    """Stands for the repository's content, uncommitted changes included."""
    return f"{source.commit}-{hashlib.sha256(script.diff.encode()).hexdigest()[:16]}"
