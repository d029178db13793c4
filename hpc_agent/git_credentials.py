"""Credentials for git that stand in no argument, no file and no address: a helper made of variable names only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_agent.redact import Secret

_USER = "HPC_AGENT_GIT_USER"
_PASSWORD = "HPC_AGENT_GIT_PASSWORD"  # noqa: S105 (the name of a variable)


@dataclass(frozen=True)
class GitCredential:
    """``origin``: the one place that may see it, e.g. ``https://host:8443``; empty for any."""

    origin: str
    user: str
    password: Secret


def settings_and_variables(credentials: Sequence[GitCredential]) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Settings of git that make it use the credentials, and the variables that must be in its environment."""
    settings: list[tuple[str, str]] = []
    variables: dict[str, str] = {}
    for number, credential in enumerate(credentials):
        user, password = f"{_USER}_{number}", f"{_PASSWORD}_{number}"
        scope = f"credential.{credential.origin}.helper" if credential.origin else "credential.helper"
        answer = f'!f() {{ test "$1" = get && printf "username=%s\\npassword=%s\\n" "${user}" "${password}"; }}; f'
        # The empty value first: whatever helper the user has set up must not answer instead.
        settings += [(scope, ""), (scope, answer)]
        variables |= {user: credential.user, password: credential.password.reveal()}
    return settings, variables


def environment(credentials: Sequence[GitCredential]) -> dict[str, str]:
    """Variables for a git that somebody else starts (an installer). git 2.31 or newer; older ones see nothing."""
    settings, variables = settings_and_variables(credentials)
    if not settings:
        return {}
    env = {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": ""}
    for number, (key, value) in enumerate(settings):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env | variables
