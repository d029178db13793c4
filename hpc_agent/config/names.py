"""Names of settings: each one's key in clearml.conf, and the environment variables that set a key.

See docs/internals/clearml-protocol.md#configuration-variables.
"""

from __future__ import annotations

from collections.abc import Mapping

CONF_PATHS: Mapping[tuple[str, str], str] = {
    ("api", "access_key"): "api.credentials.access_key",
    ("api", "secret_key"): "api.credentials.secret_key",
    ("git", "user"): "agent.git_user",
    ("git", "password"): "agent.git_pass",
    ("git", "host"): "agent.git_host",
    ("git", "force_ssh"): "agent.force_git_ssh_protocol",
    ("git", "ssh_user"): "agent.force_git_ssh_user",
    ("git", "ssh_port"): "agent.force_git_ssh_port",
    ("git", "translate_ssh"): "agent.translate_ssh",
    ("packages", "python_binary"): "agent.python_binary",
    ("packages", "ignore_requested_python_version"): "agent.ignore_requested_python_version",
    ("packages", "skip_install"): "agent.skip_python_env_install",
    ("docker", "default_image"): "agent.default_docker.image",
    ("docker", "default_arguments"): "agent.default_docker.arguments",
    ("docker", "ignore_task"): "agent.disable_task_docker_override",
    ("docker", "extra_arguments"): "agent.extra_docker_arguments",
    ("docker", "extra_labels"): "agent.extra_docker_labels",
    ("docker", "extra_shell_script"): "agent.extra_docker_shell_script",
    ("docker", "protected"): "agent.protected_docker_extra_args",
    ("docker", "allowed"): "agent.allowed_docker_extra_args",
    ("docker", "forbidden"): "agent.forbidden_docker_args",
    ("docker", "filters"): "agent.docker_args_filters",
    ("docker", "force_pull"): "agent.docker_force_pull",
}
"""Settings that are not at ``<group>.<field>``."""

GROUP_PATHS: Mapping[str, str] = {"packages": "agent.package_manager"}
"""Groups that are not at their own name."""

ENVIRONMENT: Mapping[str, str] = {
    "API_HOST": "api.api_server",
    "WEB_HOST": "api.web_server",
    "FILES_HOST": "api.files_server",
    "API_ACCESS_KEY": "api.credentials.access_key",
    "API_SECRET_KEY": "api.credentials.secret_key",
    "AUTH_TOKEN": "api.auth_token",
    "API_HOST_VERIFY_CERT": "api.verify_certificate",
    "WORKER_ID": "agent.worker_id",
    "WORKER_NAME": "agent.worker_name",
    "WORKER_TAGS": "agent.worker_tags",
    "AGENT_GIT_USER": "agent.git_user",
    "AGENT_GIT_PASS": "agent.git_pass",
    "AGENT_GIT_HOST": "agent.git_host",
    "AGENT_EXTRA_PYTHON_PATH": "agent.extra_python_path",
    "AGENT_FORCE_CODE_DIR": "agent.force_code_dir",
    "AGENT_FORCE_EXEC_SCRIPT": "agent.force_exec_script",
    "AGENT_FORCE_TASK_INIT": "agent.force_task_init",
    "AGENT_CUSTOM_BUILD_SCRIPT": "agent.custom_build_script",
    "AGENT_SKIP_PIP_VENV_INSTALL": "agent.skip_pip_venv_install",
    "AGENT_SKIP_PYTHON_ENV_INSTALL": "agent.skip_python_env_install",
    "DOCKER_IMAGE": "agent.default_docker.image",
    "DOCKER_SKIP_GPUS_FLAG": "hpc.container.skip_gpus_flag",
    "AGENT_EXTRA_DOCKER_ARGS": "agent.extra_docker_arguments",
    "AGENT_EXTRA_DOCKER_LABELS": "agent.extra_docker_labels",
    "AGENT_DOCKER_ARGS_FILTERS": "agent.docker_args_filters",
    "EXTRA_PIP_INSTALL_FLAGS": "agent.package_manager.extra_pip_install_flags",
    "CPU_ONLY": "agent.cpu_only",
    "AGENT_ENABLE_ENV_CONFIG_SECTION": "agent.apply_environment",
    "AGENT_ENABLE_FILES_CONFIG_SECTION": "agent.apply_files",
    "AGENT_QUEUE_POLL_FREQ_SEC": "hpc.poll_interval",
}
"""Variable without its prefix → key. An empty value counts as unset."""

PREFIXES = ("TRAINS_", "ClearML_", "CLEARML_")
"""Later wins. The second is how some of ClearML's own pages spell it."""

LISTS = frozenset({"EXTRA_PIP_INSTALL_FLAGS"})
"""Variables that hold several words, parted as a shell would."""

SWITCHES: Mapping[str, tuple[str, str]] = {
    "AGENT_FORCE_POETRY": ("agent.package_manager.type", "poetry"),
    "AGENT_FORCE_UV": ("agent.package_manager.type", "uv"),
}
"""Variable without its prefix → key and what it is set to when the variable says yes."""

FOREIGN: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "sdk.aws.s3.key",
    "AWS_SECRET_ACCESS_KEY": "sdk.aws.s3.secret",
    "AWS_DEFAULT_REGION": "sdk.aws.s3.region",
    "GOOGLE_APPLICATION_CREDENTIALS": "sdk.google.storage.credentials_json",
}
"""Variables of others that the SDK's configuration has keys for: so they reach a job in a file, not in its exported
environment."""

JOB_ENVIRONMENT = "hpc.job_environment"
CARRIED = (
    *("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_PROXY"),
    *("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
)
"""Variables that jobs need to reach the world. With a password in them they go into a job's file, as a part of
``JOB_ENVIRONMENT``, and not into its exported environment."""

AZURE = ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY")
AZURE_KEY = "sdk.azure.storage.containers"
"""As ``FOREIGN``; the two make one entry of this list."""

DOTTED_PREFIXES = ("CLEARML_AGENT__",)
"""``CLEARML_AGENT__a__b=value`` sets ``a.b``; the value is HOCON."""


SITE_VARIABLE = "HPC_AGENT_SITE_CONFIG"
"""Names the site's file, in place of the one in /etc."""

RESOLVED = "hpc_agent_resolved"
"""Key of a file that a daemon wrote: everything that was read is in it."""

RENAMED: Mapping[str, str] = {"hpc.slurm.lost_after": "hpc.lost_after"}
"""Old key → the key that it is today. Old ones are still read, and ``Configuration.notes`` say so."""


ALIASES: Mapping[str, str] = {"agent.slurm.user_map": "hpc.user_map"}
"""Key of ClearML's paid Slurm glue → ours, which holds where both are given."""


def is_setting(variable: str) -> bool:
    """Whether a variable only sets a key of the configuration."""
    return variable.startswith((*DOTTED_PREFIXES, SITE_VARIABLE)) or any(
        variable.removeprefix(prefix) in (*ENVIRONMENT, *SWITCHES) for prefix in PREFIXES if variable.startswith(prefix)
    )


def conf_path(group: str, field: str) -> str:
    """The key in clearml.conf of ``AllSettings.<group>.<field>``."""
    return CONF_PATHS.get((group, field)) or f"{GROUP_PATHS.get(group, group)}.{field}"
