"""ClearML's own sections of clearml.conf: of them only these keys are read."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from hpc_agent.config.types import Interval, Seconds, SettingsGroup
from hpc_agent.domain.container_options import PROTECTED
from hpc_agent.redact import Secret


class ApiSettings(SettingsGroup, frozen=True, kw_only=True):
    """``api``: where the ClearML server is and who we are."""

    api_server: Annotated[str, Meta(description="URL of the API server.")] = ""
    web_server: Annotated[str, Meta(description="URL of the web page; derived from api_server when empty.")] = ""
    files_server: Annotated[str, Meta(description="URL of the file server; derived from api_server when empty.")] = ""
    access_key: Annotated[str, Meta(description="Access key (`api.credentials.access_key`).")] = ""
    secret_key: Annotated[Secret, Meta(description="Secret key (`api.credentials.secret_key`).")] = Secret("")
    auth_token: Annotated[Secret, Meta(description="Ready token instead of keys (`CLEARML_AUTH_TOKEN`).")] = Secret("")
    login_token: Annotated[
        Secret,
        Meta(description="Access key and token of an earlier login, `KEY:TOKEN`; the daemon writes it for its jobs."),
    ] = Secret("")
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
