"""Credentials for git, in variables of its environment: not in an argument, a file or an address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from hpc_agent.redact import Secret

# Lower case: installers put variables into addresses that packages name, but upper-case ones only.
_USER = "hpc_agent_git_user"
_PASSWORD = "hpc_agent_git_password"  # noqa: S105 (the name of a variable)

SILENCE_S = 60
"""Seconds without data after which a remote is given up; a fetch may take an hour as long as data comes."""

PROTOCOLS = "file:http:https:ssh"
"""What git may speak: no ``ext::``, which runs programs, and no ``git://``, which proves nothing and waits forever."""

CAREFUL_GIT: tuple[tuple[str, str], ...] = (
    # A server that counts objects sends five bytes each five seconds (uploadpack.keepAlive).
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", str(SILENCE_S)),
)
"""Settings for every git that uses the network, ours and that of installers."""


def ssh_command(configured: str) -> str:
    """The ssh that git starts: it asks nothing, and gives up a server that does not answer."""
    options = f"-oBatchMode=yes -oConnectTimeout=20 -oServerAliveInterval={SILENCE_S // 4} -oServerAliveCountMax=4"
    return f"{configured or 'ssh'} {options}"


class GitCredential(msgspec.Struct, frozen=True):
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
        # The empty value first: a helper that the user has set up must not answer instead.
        settings += [(scope, ""), (scope, answer)]
        variables |= {user: credential.user, password: credential.password.reveal()}
    return settings, variables


def environment(
    credentials: Sequence[GitCredential], further: Sequence[tuple[str, str]], inherited: Mapping[str, str]
) -> dict[str, str]:
    """Variables for a git that an installer starts, with ``further`` settings and those in
    ``inherited``. git 2.31 or newer; older ones see no settings."""
    settings, variables = settings_and_variables(credentials)
    settings = [*further, *_inherited_settings(inherited), *settings]
    env = {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": ""}
    env |= {"GIT_ALLOW_PROTOCOL": PROTOCOLS, "GIT_SSH_COMMAND": ssh_command(inherited.get("GIT_SSH_COMMAND", ""))}
    for number, (key, value) in enumerate(settings):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env | variables


def _inherited_settings(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    count = environ.get("GIT_CONFIG_COUNT", "")
    names = [f"GIT_CONFIG_{{}}_{number}" for number in range(int(count) if count.isascii() and count.isdigit() else 0)]
    pairs = [(environ.get(name.format("KEY"), ""), environ.get(name.format("VALUE"), "")) for name in names]
    return [(key, value) for key, value in pairs if key]
