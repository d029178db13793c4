"""How ``hpc-agent init`` keeps the daemon running: a systemd user unit, or lines for a crontab."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from hpc_agent.cli.init_flags import SERVICES, InitFlags

if TYPE_CHECKING:
    from hpc_agent.config.load import Configuration
    from hpc_agent.setup.managed_text import Change
    from hpc_agent.setup.section import Choices
    from hpc_agent.setup.survey import SiteFacts


class DaemonService(msgspec.Struct, frozen=True):
    """How the daemon is to be kept running."""

    kind: str
    command: tuple[str, ...]
    """The daemon's command line."""
    changes: tuple[Change, ...] = ()
    lines: tuple[str, ...] = ()
    """For a crontab."""


def chosen_service(
    present: Configuration, facts: SiteFacts, choices: Choices, flags: InitFlags, path: Path
) -> DaemonService:
    """
    Raises:
        InputError: the site has no such crontab.
    """
    from hpc_agent.config.load import DEFAULT_FILES
    from hpc_agent.setup import daemon_service

    usual = flags.site or path in [Path(name).expanduser() for name in DEFAULT_FILES]
    program = _program()
    line = tuple(daemon_service.daemon_command(program, "" if usual else str(path), choices.queues))
    kind = flags.service or "none"
    if flags.service is None and flags.asks:
        from hpc_agent.cli.init_choices import ask_for_service

        kind = ask_for_service(SERVICES, facts)
    if kind == "none":
        return DaemonService(kind, line)
    return _kept_running(kind, line, present, facts, choices)


def _kept_running(
    kind: str, line: tuple[str, ...], present: Configuration, facts: SiteFacts, choices: Choices
) -> DaemonService:
    from hpc_agent.domain.resources import Resources
    from hpc_agent.errors import InputError
    from hpc_agent.schedulers import backends
    from hpc_agent.setup import daemon_service
    from hpc_agent.setup.managed_text import whole_file

    backend = backends.choose(present.settings.hpc)
    variables = daemon_service.service_environment(os.environ, backend.command_variables)
    if kind == "systemd":
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd" / "user"
        unit = daemon_service.systemd_unit(line, {"PATH": os.environ["PATH"], **variables})
        return DaemonService(kind, line, changes=(whole_file(folder / "hpc-agent.service", unit),))
    log = str(Path.home() / "hpc-agent-daemon.log")
    once = daemon_service.periodic_command(line, variables, log)
    if kind == "cron":
        return DaemonService(kind, line, lines=(daemon_service.cron_line(once),))
    client = backend.cluster_client(present.settings.hpc)
    if client is None or facts.cluster is None or not facts.cluster.periodic_jobs:
        raise InputError(
            f"there is no {kind} here: {facts.cluster.scheduler if facts.cluster else 'this machine'} has none, or its "
            "administrators have not switched it on; choose --service cron or systemd"
        )
    resources = Resources(partition=choices.partition.split(",")[0], account=choices.account, qos=choices.qos)
    return DaemonService(kind, line, lines=tuple(client.periodic_job(once, resources).splitlines()))


def _program() -> Sequence[str]:
    """How a service calls this program, wherever it is started."""
    script = Path(sys.executable).with_name("hpc-agent")
    return [str(script)] if script.exists() else [sys.executable, "-m", "hpc_agent"]
