"""The whole configuration, and the section ``hpc`` of clearml.conf, which is ours. Each setting has its type, its
default and one sentence: ``config.load`` fills them, docs/settings.md is made of them. Groups of settings have modules
of their own, ClearML's sections ``config.clearml_settings``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, field

from hpc_agent.config.clearml_settings import (
    AgentSettings,
    ApiSettings,
    DockerSettings,
    GitSettings,
    PackageSettings,
)
from hpc_agent.config.container_settings import ContainerSettings
from hpc_agent.config.envs_settings import EnvsSettings
from hpc_agent.config.many_nodes_settings import ManyNodesSettings
from hpc_agent.config.notify_settings import NotifySettings
from hpc_agent.config.relay_settings import RelaySettings
from hpc_agent.config.resource_settings import QueueSettings, ResourceSettings
from hpc_agent.config.server_settings import ServerSettings
from hpc_agent.config.types import BackendSettings, Count, Interval, Positive, Seconds, SettingsGroup, parse_truth
from hpc_agent.domain.launch_plan import LaunchDefaults, parse_launcher
from hpc_agent.schedulers.registry import BACKENDS, settings_of

_DEFAULT_QUEUE = QueueSettings()
B = TypeVar("B", bound=BackendSettings)
_SCHEDULER = f"What runs the jobs: {', '.join(BACKENDS)}; auto: the first of these whose commands are found."


class _HpcSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc``: everything that is ours. Each scheduler backend has a section of its own in it, by its name."""

    scheduler: Annotated[str, Meta(description=_SCHEDULER)] = "auto"
    cluster: Annotated[str, Meta(description="The cluster's name; asked from the scheduler when empty.")] = ""
    root: Annotated[Path, Meta(description="Folder on the shared file system that holds all of the following.")] = Path(
        "~/.clearml/hpc"
    )
    runs_dir: Annotated[Path | None, Meta(description="Run directories; `<root>/runs` when not set.")] = None
    cache_dir: Annotated[
        Path | None, Meta(description="Environments and repositories; `<root>/cache` when not set.")
    ] = None
    scratch_dir: Annotated[
        Path | None, Meta(description="Node-local folder; the job's own, TMPDIR or /tmp when not set.")
    ] = None
    template_dirs: Annotated[tuple[Path, ...], Meta(description="Folders searched for templates before our own.")] = ()
    agent_command: Annotated[
        tuple[str, ...], Meta(description="How a job calls this program; our own interpreter when empty.")
    ] = ()
    agent_archive: Annotated[
        bool,
        Meta(
            description="Staged tasks on one node run this program from the node's own disk, unpacked there once from "
            "one archive in `<root>/agents`: for programs that are installed on a shared file system."
        ),
    ] = False
    poll_interval: Annotated[
        Interval, Meta(description="Seconds between two passes of the daemon, and between two looks at its queues.")
    ] = 5
    quiet_interval: Annotated[
        Interval | None,
        Meta(
            description="Seconds between two passes while all jobs only wait or run: the scheduler is asked no more "
            "often then. A change of a queue and the end of a job start a pass at once. Six times `poll_interval` when "
            "not set."
        ),
    ] = None
    wait_message_interval: Annotated[
        Seconds,
        Meta(
            description="Least number of seconds between two changes of a waiting task's status message (why its job "
            "waits, its expected start); both come with each pass's one query of the scheduler."
        ),
    ] = 20
    max_jobs: Annotated[Positive, Meta(description="Jobs in the scheduler at once, all queues together.")] = 100
    lost_after: Annotated[
        Seconds, Meta(description="A job that left without a trace is called lost after this many seconds.")
    ] = 600
    keep_runs_days: Annotated[
        Count, Meta(description="Days for which run directories of ended tasks are kept; 0 keeps them forever.")
    ] = 30
    term_grace: Annotated[Seconds, Meta(description="Seconds a task has to end after SIGTERM before SIGKILL.")] = 20
    interrupt_after: Annotated[
        Seconds,
        Meta(
            description="Seconds after the SIGTERM of an abort at which a program that uses ClearML's SDK gets SIGINT: "
            "the SDK keeps SIGTERM from it. 0: never."
        ),
    ] = 1.5
    resources: Annotated[
        ResourceSettings, Meta(description="What a job asks for unless its queue or task says otherwise.")
    ] = ResourceSettings()
    job_environment: Annotated[
        dict[str, str],
        Meta(
            description="Variables of every job, which reach it in a file of mode 0600 and not in the environment that "
            "the scheduler passes on: for values with passwords. Proxies and package indexes of the daemon's own "
            "environment that have one are added."
        ),
    ] = field(default_factory=dict)
    user_map: Annotated[
        dict[str, str],
        Meta(
            description="Linux user that runs the tasks of each ClearML user, by the ClearML user's id; `default` for "
            "all others. Empty: all jobs are the daemon's own user's. `agent.slurm.user_map` is the same."
        ),
    ] = field(default_factory=dict)
    user_command: Annotated[
        tuple[str, ...],
        Meta(
            description="What runs a program as another Linux user, `{user}`, with its arguments behind; when empty "
            "`runuser -u {user} --` for root and `sudo -n -H -u {user} --` for others."
        ),
    ] = ()
    user_root: Annotated[
        str,
        Meta(description="`hpc.root` of the users in `user_map`: `~` is their home, `{user}` their name."),
    ] = "~/.clearml/hpc"
    queues: Annotated[dict[str, QueueSettings], Meta(description="One block for each queue, by name.")] = field(
        default_factory=dict
    )
    notify: Annotated[
        NotifySettings, Meta(description="Who gets a notification when tasks start, end or wait too long.")
    ] = NotifySettings()
    envs: Annotated[EnvsSettings, Meta(description="Where environments are built, how nodes get them.")] = (
        EnvsSettings()
    )
    relay: Annotated[
        RelaySettings, Meta(description="How jobs reach the ClearML server where their nodes have no way to it.")
    ] = RelaySettings()
    server: Annotated[ServerSettings, Meta(description="The embedded server.")] = ServerSettings()
    container: Annotated[ContainerSettings, Meta(description="What runs the containers of tasks.")] = (
        ContainerSettings()
    )
    many_nodes: Annotated[ManyNodesSettings, Meta(description="How tasks on many nodes are started.")] = (
        ManyNodesSettings()
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, queue in self.queues.items():
            queue.check_pilot(name, self.resources)

    @property
    def images(self) -> Path:
        """Folder with image files: ``container.images_dir``, or ``<root>/images``."""
        return self.container.images_dir or self.root / "images"

    @property
    def runs(self) -> Path:
        """Folder of the run directories: ``runs_dir``, or ``<root>/runs``."""
        return self.runs_dir or self.root / "runs"

    @property
    def cache(self) -> Path:
        """Folder of the shared cache: ``cache_dir``, or ``<root>/cache``."""
        return self.cache_dir or self.root / "cache"

    @property
    def pilots(self) -> Path:
        """Folder of the tasks that pilots run: ``<root>/pilots``."""
        return self.root / "pilots"

    @property
    def server_data(self) -> Path:
        """Folder of the embedded server: ``server.data_dir``, or ``<root>/server``."""
        return self.server.data_dir or self.root / "server"

    @property
    def scratch(self) -> Path:
        """The node's own folder for files that need not outlive the job: ``scratch_dir``, or the job's own."""
        if self.scratch_dir:
            return self.scratch_dir
        found = (os.environ.get(name) for name in self._scratch_variables)
        return Path(next(filter(None, found), "/tmp"))  # noqa: S108

    @property
    def scratch_places(self) -> tuple[str, ...]:
        """What says on a node where ``scratch`` is: its path, or the names of variables, the first that is set."""
        return (str(self.scratch_dir),) if self.scratch_dir else self._scratch_variables

    @property
    def _scratch_variables(self) -> tuple[str, ...]:
        return (*(name for backend in BACKENDS for name in settings_of(backend).scratch_variables), "TMPDIR")

    def queue(self, name: str) -> QueueSettings:
        """The block of a queue, or the defaults for one without a block."""
        return self.queues.get(name, _DEFAULT_QUEUE)

    def launch_defaults(self, queue: str) -> LaunchDefaults:
        """What starts the ranks of a queue's tasks on many nodes, unless they say otherwise."""
        launcher = self.queue(queue).launcher or self.many_nodes.launcher
        return LaunchDefaults(parse_launcher(launcher, "launcher"), self.many_nodes.ranks_per_node)

    def backend_settings(self, kind: type[B]) -> B:
        """The section of the scheduler backend whose settings are of this class."""
        return next(section for name in BACKENDS if isinstance(section := getattr(self, name), kind))


if TYPE_CHECKING:
    # To mypy no backend has a name here: only its own package knows its section, by
    # ``backend_settings``.
    HpcSettings = _HpcSettings
else:
    _CHOICES = ("auto", *BACKENDS)
    HpcSettings = msgspec.defstruct(
        "HpcSettings",
        [
            ("scheduler", Annotated[Literal[_CHOICES], Meta(description=_SCHEDULER)], "auto"),
            *((name, settings_of(name), settings_of(name)()) for name in BACKENDS),
        ],
        bases=(_HpcSettings,),
        namespace={"__doc__": _HpcSettings.__doc__},
        module=__name__,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )


class AllSettings(SettingsGroup, frozen=True, kw_only=True):
    """The whole configuration as values."""

    api: ApiSettings = ApiSettings()
    agent: AgentSettings = AgentSettings()
    git: GitSettings = GitSettings()
    packages: PackageSettings = PackageSettings()
    docker: DockerSettings = DockerSettings()
    hpc: HpcSettings = HpcSettings()

    @property
    def python_packages(self) -> PackageSettings:
        """``packages`` with what ``agent.skip_pip_venv_install`` says of the interpreter."""
        value = self.agent.skip_pip_venv_install.strip()
        truth = parse_truth(value)
        if not value or truth is False:
            return self.packages
        binary = (self.packages.python_binary or sys.executable) if truth else value
        return msgspec.structs.replace(self.packages, python_binary=binary, system_site_packages=True)
