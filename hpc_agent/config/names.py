"""Where each setting lives in clearml.conf, and which environment variables stand for which key (wire.md 2.2, 2.3)."""

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
    "AGENT_GIT_USER": "agent.git_user",
    "AGENT_GIT_PASS": "agent.git_pass",
    "AGENT_GIT_HOST": "agent.git_host",
    "AGENT_EXTRA_PYTHON_PATH": "agent.extra_python_path",
}
"""Variable without its prefix ``CLEARML_`` (or the old ``TRAINS_``) → key. An empty value counts as unset."""

DOTTED_PREFIXES = ("CLEARML_AGENT__",)
"""``CLEARML_AGENT__a__b=value`` sets ``a.b``; the value is HOCON."""


def conf_path(group: str, field: str) -> str:
    """The key in clearml.conf of ``AllSettings.<group>.<field>``."""
    return CONF_PATHS.get((group, field)) or f"{GROUP_PATHS.get(group, group)}.{field}"
