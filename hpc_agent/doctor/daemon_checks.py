"""Checks of the daemon: is each configured queue served, by a daemon that shares our folder and gives signs of life?"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from hpc_agent.clock import Clock
from hpc_agent.config.settings import HpcSettings
from hpc_agent.daemon.registration import DaemonRecord, DaemonRegistry
from hpc_agent.doctor.check import Check, CheckResult, ok, skipped, warning
from hpc_agent.heartbeat import HeartbeatTiming

SUBJECT = "Daemon"


def checks(hpc: HpcSettings, queues: Sequence[str], id_of: Callable[[str], str], clock: Clock) -> list[Check]:
    """``id_of``: of a queue by its name; empty where it is not known."""
    registry = DaemonRegistry(hpc.root.expanduser() / "daemons", socket.gethostname(), clock)
    if not queues:
        return [Check(SUBJECT, "daemon", partial(_any_daemon, registry))]
    return [Check(SUBJECT, f"serves {queue}", partial(_serves, registry, queue, id_of)) for queue in queues]


def _any_daemon(registry: DaemonRegistry) -> Iterator[CheckResult]:
    found = _alive(registry)
    if not found:
        yield skipped("none is running, and no queue is configured", "hpc-agent daemon --queue NAME --detached")
    for daemon in found:
        yield _state(registry, daemon)


def _serves(registry: DaemonRegistry, queue: str, id_of: Callable[[str], str]) -> Iterator[CheckResult]:
    alive = _alive(registry)
    names = {queue}
    if alive and not any(queue in daemon.queues for daemon in alive):
        names.add(id_of(queue))
    found = [daemon for daemon in alive if names & {*daemon.queues}]
    if not found:
        yield warning(
            "no daemon that shares hpc.root runs for it: its tasks wait",
            f"hpc-agent daemon --queue {shlex.quote(queue)} --detached     # unless cron starts its passes",
        )
    for daemon in found:
        yield _state(registry, daemon)


def _alive(registry: DaemonRegistry) -> list[DaemonRecord]:
    return [daemon for daemon in registry.all() if registry.is_running(daemon) is not False]


def _state(registry: DaemonRegistry, daemon: DaemonRecord) -> CheckResult:
    since = f"{daemon.since.astimezone():%Y-%m-%d %H:%M}"
    if registry.is_running(daemon):
        return ok(f"{daemon.worker} has been running since {since}, process {daemon.process.pid}")
    silent = registry.last_beat(daemon)
    if silent is None:
        return ok(f"{daemon.worker} was started on {daemon.host} at {since}; whether it runs is not seen from here")
    if silent <= HeartbeatTiming().expires_after:
        return ok(f"{daemon.worker} runs on {daemon.host} since {since}")
    return warning(
        f"{daemon.worker} was started on {daemon.host}, and its last heartbeat was {silent:.0f} s ago",
        f"hpc-agent daemon --status     # on {daemon.host}; if it is dead, start one here",
    )
