"""Every setting: its type, its default, one sentence. ``config.load`` fills them, docs/settings.md is made of them.

The section ``hpc`` of clearml.conf is ours; the others are ClearML's own; only these keys of them are read.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, field

from hpc_agent.config.many_nodes_settings import ManyNodesSettings
from hpc_agent.config.notify_settings import NotifySettings
from hpc_agent.config.relay_settings import RelaySettings
from hpc_agent.config.resource_settings import QueueSettings, ResourceSettings
from hpc_agent.config.types import BackendSettings, Count, Interval, Positive, Seconds, SettingsGroup, parse_truth
from hpc_agent.domain.container_options import PROTECTED
from hpc_agent.domain.launch_plan import LaunchDefaults, parse_launcher
from hpc_agent.redact import Secret
from hpc_agent.schedulers.registry import BACKENDS, settings_of


class ApiSettings(SettingsGroup, frozen=True, kw_only=True):
    """``api``: where the ClearML server is and who we are."""

    api_server: Annotated[str, Meta(description="URL of the API server.")] = ""
    web_server: Annotated[str, Meta(description="URL of the web page; derived from api_server when empty.")] = ""
    files_server: Annotated[str, Meta(description="URL of the file server; derived from api_server when empty.")] = ""
    access_key: Annotated[str, Meta(description="Access key (`api.credentials.access_key`).")] = ""
    secret_key: Annotated[Secret, Meta(description="Secret key (`api.credentials.secret_key`).")] = Secret("")
    auth_token: Annotated[Secret, Meta(description="Ready token instead of keys (`CLEARML_AUTH_TOKEN`).")] = Secret("")
    verify_certificate: Annotated[
        bool | str, Meta(description="Check the server's TLS certificate, or path of a CA bundle to check it with.")
    ] = True

    @property
    def token_in_place_of_keys(self) -> Secret:
        """The token where there are no keys; empty else."""
        return Secret("") if self.access_key else self.auth_token


class GitSettings(SettingsGroup, frozen=True, kw_only=True):
    """``agent.git_*`` and ``agent.vcs_cache``: how repositories are reached."""

    user: Annotated[str, Meta(description="User for HTTPS git remotes.")] = ""
    password: Annotated[Secret, Meta(description="Password or token for HTTPS git remotes.")] = Secret("")
    host: Annotated[
        str,
        Meta(description="The one host that git_user and git_pass are for; default: those in git's own configuration."),
    ] = ""
    force_ssh: Annotated[bool, Meta(description="Rewrite https remotes to ssh.")] = False
    ssh_user: Annotated[str, Meta(description="User in rewritten ssh remotes.")] = ""
    ssh_port: Annotated[int | None, Meta(description="Port in rewritten ssh remotes.")] = None
    translate_ssh: Annotated[
        bool, Meta(description="Rewrite ssh remotes to https when git_user and git_pass are known.")
    ] = True


class PackageSettings(SettingsGroup, frozen=True, kw_only=True):
    """``agent.package_manager`` and neighbours: how environments are built."""

    type: Annotated[
        Literal["uv", "pip", "conda", "poetry"],
        Meta(
            description="Installer: uv, or pip where a site wants it; poetry: what poetry projects ask for, by uv; "
            "conda: conda's packages where a task or its repository lists them, everything else by uv."
        ),
    ] = "uv"
    python_binary: Annotated[str, Meta(description="Interpreter to use whatever the task asks for.")] = ""
    ignore_requested_python_version: Annotated[
        bool, Meta(description="Use our own interpreter version even if the task names another.")
    ] = False
    skip_install: Annotated[
        bool,
        Meta(description="Install nothing: the Python on PATH runs tasks (`CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL`)."),
    ] = False
    system_site_packages: Annotated[bool, Meta(description="Environments see the system's packages.")] = False
    extra_index_url: Annotated[tuple[str, ...], Meta(description="Further package indexes.")] = ()
    extra_pip_install_flags: Annotated[tuple[str, ...], Meta(description="Passed on to the installer.")] = ()
    post_packages: Annotated[
        tuple[str, ...], Meta(description="Packages built last, when all others are there to build them with.")
    ] = ("horovod",)
    conda_channels: Annotated[
        tuple[str, ...], Meta(description="Channels of conda packages where an environment.yml names none.")
    ] = ("conda-forge",)
    conda_program: Annotated[
        str,
        Meta(
            description="Program that resolves and installs conda packages; the first of micromamba, mamba and conda "
            "when empty."
        ),
    ] = ""
    force_repo_requirements_txt: Annotated[
        bool, Meta(description="Use the repository's requirements.txt, not the task's list.")
    ] = False
    force_original_requirements: Annotated[
        bool, Meta(description="Use the list a user asked for (`org_pip`), not the frozen one.")
    ] = False


class AgentSettings(SettingsGroup, frozen=True, kw_only=True):
    """The rest of ``agent`` that we read."""

    worker_id: Annotated[str, Meta(description="Full worker id; generated when empty.")] = ""
    worker_name: Annotated[str, Meta(description="Prefix of generated worker ids; the host name when empty.")] = ""
    worker_tags: Annotated[
        str | tuple[str, ...], Meta(description="Tags of status reports (`CLEARML_WORKER_TAGS`).")
    ] = ()
    uptime: Annotated[
        tuple[str, ...], Meta(description="When the daemon takes tasks, as `--uptime`: a list of `<hours> <days>`.")
    ] = ()
    downtime: Annotated[tuple[str, ...], Meta(description="When it does not, as `--downtime`.")] = ()
    enable_task_env: Annotated[
        bool, Meta(description="Export the task's hyper-parameter section `Environment` to its process.")
    ] = False
    force_code_dir: Annotated[
        Path | None,
        Meta(description="Run tasks from this folder, without their code (`CLEARML_AGENT_FORCE_CODE_DIR`)."),
    ] = None
    force_exec_script: Annotated[
        str,
        Meta(
            description="`file` or `folder:file` to run in place of a task's own (`CLEARML_AGENT_FORCE_EXEC_SCRIPT`)."
        ),
    ] = ""
    force_task_init: Annotated[
        bool, Meta(description="Give scripts without one an SDK init call (`CLEARML_AGENT_FORCE_TASK_INIT`).")
    ] = False
    custom_build_script: Annotated[
        str,
        Meta(
            description="Program that may choose interpreter, script and folder of a task once its code is there "
            "(`CLEARML_AGENT_CUSTOM_BUILD_SCRIPT`)."
        ),
    ] = ""
    skip_pip_venv_install: Annotated[
        str,
        Meta(
            description="true, or an interpreter: tasks see the packages it has, environments only add what is missing "
            "(`CLEARML_AGENT_SKIP_PIP_VENV_INSTALL`)."
        ),
    ] = ""
    cpu_only: Annotated[bool, Meta(description="Hide all GPUs, as `--cpu-only` (`CLEARML_CPU_ONLY`).")] = False
    apply_environment: Annotated[
        bool, Meta(description="Export what the section `environment` of this file holds.")
    ] = True
    apply_files: Annotated[bool, Meta(description="Write the files that the section `files` describes.")] = True
    extra_python_path: Annotated[str, Meta(description="Appended to the task's PYTHONPATH.")] = ""
    force_git_root_python_path: Annotated[
        bool, Meta(description="Put the repository's root on PYTHONPATH, not the script's folder.")
    ] = False
    task_ping_interval_sec: Annotated[Interval, Meta(description="How often a running task says it is alive.")] = 60
    abort_callback_max_timeout: Annotated[
        Seconds, Meta(description="The longest that a task's own abort callback may take.")
    ] = 1800
    suppress_carriage_return: Annotated[
        bool, Meta(description="Collapse progress bars to their last state in the console.")
    ] = True

    @property
    def name(self) -> str:
        return self.worker_name or socket.gethostname()

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(shlex.split(self.worker_tags)) if isinstance(self.worker_tags, str) else self.worker_tags


class DockerSettings(SettingsGroup, frozen=True, kw_only=True):
    """The keys of ``agent`` that shape containers. Arguments are docker's; a text is split as a shell would."""

    default_image: Annotated[str, Meta(description="Image of tasks that name none (`CLEARML_DOCKER_IMAGE`).")] = ""
    default_arguments: Annotated[
        str | tuple[str, ...], Meta(description="Arguments that go with the default image.")
    ] = ()
    ignore_task: Annotated[
        bool, Meta(description="Always take the default image, whatever container a task names.")
    ] = False
    extra_arguments: Annotated[
        str | tuple[str, ...],
        Meta(description="The site's arguments for every container (`CLEARML_AGENT_EXTRA_DOCKER_ARGS`)."),
    ] = ()
    extra_labels: Annotated[
        str | tuple[str, ...], Meta(description="Labels for every container (`CLEARML_AGENT_EXTRA_DOCKER_LABELS`).")
    ] = ()
    extra_shell_script: Annotated[
        str | tuple[str, ...], Meta(description="Shell lines run in every container before the task's own script.")
    ] = ()
    protected: Annotated[
        tuple[str, ...], Meta(description="Arguments that only the site may give; a task that gives one is refused.")
    ] = PROTECTED
    allowed: Annotated[
        tuple[str, ...],
        Meta(description="Arguments that tasks may give, protected or not, and the harmless ones: `volume`, `device`."),
    ] = ()
    forbidden: Annotated[
        tuple[str, ...], Meta(description="Arguments that are always dropped; the console names them.")
    ] = ("entrypoint",)
    filters: Annotated[
        str | tuple[str, ...],
        Meta(description="Regular expressions; a task's arguments that match none are left out. None: all may pass."),
    ] = ()
    force_pull: Annotated[bool, Meta(description="Always pull the image for each task, where there is a network.")] = (
        False
    )


class EnvsSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.envs``: where environments are built, and how nodes get them."""

    build_on: Annotated[
        Literal["login", "job", "compute"],
        Meta(
            description="login: on the login node, at low priority; job: in a small job of its own before the GPU job; "
            "compute: in the GPU job itself, where compute nodes reach package index and git."
        ),
    ] = "login"
    resources: Annotated[ResourceSettings, Meta(description="What a staging job asks for (`build_on: job`).")] = (
        ResourceSettings(num_gpus=0)
    )
    mount: Annotated[
        bool,
        Meta(description="Mount environments (squashfs) instead of unpacking them, on nodes that have squashfuse."),
    ] = False


class ContainerSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.container``: what runs the containers of tasks."""

    runtime: Annotated[
        Literal[
            "none", "docker", "podman", "podman-hpc", "apptainer", "singularity", "charliecloud", "enroot", "pyxis"
        ],
        Meta(description="What runs a task's image: none runs the task without it, docker falls back to podman."),
    ] = "none"
    program: Annotated[str, Meta(description="Name or path of the runtime's program; its usual name when empty.")] = ""
    arguments: Annotated[
        tuple[str, ...],
        Meta(
            description="Arguments that every container gets here, in the runtime's own words: `[--no-home]` of "
            "apptainer, `[--container-writable]` of pyxis."
        ),
    ] = ()
    images_dir: Annotated[
        Path | None,
        Meta(description="Folder on the shared file system with image files; `<root>/images` when not set."),
    ] = None
    python: Annotated[
        Literal["auto", "image", "shared"],
        Meta(
            description="Whose Python runs a task in an image: the image's own, with its packages, or ours from the "
            "shared cache; auto: the image's where it has one."
        ),
    ] = "auto"
    skip_gpus_flag: Annotated[
        bool,
        Meta(description="No GPU flag for docker: NVIDIA_VISIBLE_DEVICES instead (`CLEARML_DOCKER_SKIP_GPUS_FLAG`)."),
    ] = False


class ServerSettings(SettingsGroup, frozen=True, kw_only=True):
    """``hpc.server``: the embedded server."""

    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[Count, Meta(description="Port of API, files and pages; 0 takes a free one.")] = 8008
    data_dir: Annotated[Path | None, Meta(description="Database and files; `<root>/server` when not set.")] = None
    certfile: Annotated[Path | None, Meta(description="Certificate (PEM) for HTTPS; HTTP when not set.")] = None
    keyfile: Annotated[Path | None, Meta(description="Its key (PEM); in the certificate's file when not set.")] = None
    max_upload_mb: Annotated[Positive, Meta(description="MiB that one uploaded file may have.")] = 51200
    max_storage_mb: Annotated[
        Positive | None, Meta(description="MiB that all uploaded files may take; as the disk holds when not set.")
    ] = None
    connections_per_address: Annotated[
        Positive, Meta(description="Connections that one address may hold; an unfinished one gives way to the next.")
    ] = 200
    keep_events_days: Annotated[
        Count,
        Meta(
            description="Days after which console, scalars, plots and debug images of an ended task are deleted; "
            "published tasks keep them. 0: kept forever."
        ),
    ] = 0


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
