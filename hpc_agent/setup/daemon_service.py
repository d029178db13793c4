"""How the daemon is kept running: a systemd user unit, or a line of a crontab. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

_INHERITED = ("HPC_AGENT_SITE_CONFIG", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_EVERY_MINUTES = 5


def daemon_command(program: Sequence[str], config_file: str, queues: Sequence[str]) -> list[str]:
    """``program``: how this program is called. ``config_file``: empty for the usual one."""
    named = ["--config-file", config_file] if config_file else []
    return [*program, *named, "daemon", "--queue", *queues]


def service_environment(environ: Mapping[str, str], also: Sequence[str]) -> dict[str, str]:
    """What a service does not have by itself, for it starts without the person's shell. ``also``: further names."""
    names = dict.fromkeys((*also, *_INHERITED))
    return {name: value for name in names if (value := environ.get(name, "")) and value.isprintable()}


def systemd_unit(command: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Lines of a user unit that runs the daemon."""
    return [
        "# Written by hpc-agent init, which keeps your edits when it is run again.",
        "[Unit]",
        "Description=hpc-agent daemon: ClearML queues to batch jobs",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"ExecStart={' '.join(_word(word).replace('$', '$$') for word in (*command, '--foreground'))}",
        *(f"Environment={_word(f'{name}={value}')}" for name, value in variables.items()),
        "Restart=on-failure",
        "RestartSec=30",
        "# Exit code 2: the configuration is wrong, and starting again does not repair it.",
        "RestartPreventExitStatus=2",
        "# The daemon alone: jobs of this machine go on.",
        "KillMode=process",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]


def _word(text: str) -> str:
    """One word of a unit, in which ``%`` begins a specifier."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if re.search(r"[\s'\"\\;]", text) or not text else escaped


def periodic_command(command: Sequence[str], variables: Mapping[str, str], log: str) -> str:
    """One pass of the daemon as a shell command for a crontab. A login shell has the person's PATH and modules. In a
    crontab ``%`` ends the command unless a backslash is before it."""
    assigned = "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
    once = shlex.quote(shlex.join([*command, "--once"]))
    return f"{assigned}bash -lc {once} >> {shlex.quote(log)} 2>&1".replace("%", "\\%")


def cron_line(command: str) -> str:
    return f"*/{_EVERY_MINUTES} * * * * {command}"
