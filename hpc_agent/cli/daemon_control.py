"""``daemon --stop`` and ``daemon --status``."""

from __future__ import annotations

from collections.abc import Mapping

import click

from hpc_agent.cli.daemon_flags import DaemonFlags
from hpc_agent.cli.daemon_start import DaemonPlan, daemons_of, make_plan
from hpc_agent.cli.shared_options import Shared
from hpc_agent.cli.table import one_line
from hpc_agent.clock import SYSTEM
from hpc_agent.daemon.registration import DaemonRecord, DaemonRegistry, RegistrationError, matching
from hpc_agent.daemon.served_queues import FORCE
from hpc_agent.domain.ids import WorkerId
from hpc_agent.domain.schedule import served
from hpc_agent.errors import HpcAgentError


def stop(shared: Shared, flags: DaemonFlags) -> None:
    """Stop the daemons that were named, else the first of this machine that was started with the flags given.

    Raises:
        RegistrationError: none is found, or it belongs to another user; the others are stopped.
    """
    settings = flags.configuration(shared).settings
    daemons = daemons_of(settings)
    wanted = [_named(daemons, id) for id in flags.stop or ()] or [_first(daemons, settings.agent.worker_id, flags)]
    refused = [answer for answer in wanted if isinstance(answer, RegistrationError)]
    for daemon in wanted:
        if isinstance(daemon, DaemonRecord):
            daemons.stop(daemon)
            click.echo(f"Stopped {daemon.worker} (process {daemon.process.pid}); its jobs go on")
    if refused:
        raise RegistrationError("; ".join(map(str, refused)))


def _named(daemons: DaemonRegistry, id: str) -> DaemonRecord | RegistrationError:
    found = [daemon for daemon in daemons.all() if daemon.worker == id]
    if not found:
        return RegistrationError(f"no daemon {id} is registered here; {_those(daemons)}")
    return (
        found[0] if daemons.is_running(found[0]) is not False else RegistrationError(f"the daemon {id} is not running")
    )


def _first(daemons: DaemonRegistry, name: str, flags: DaemonFlags) -> DaemonRecord | RegistrationError:
    """By the name that the configuration gives, else by the flags, in the order of their ids."""
    running = daemons.running()
    found = [daemon for daemon in running if daemon.worker == name] if name else matching(running, flags.given())
    if found:
        return found[0]
    if not running:
        return RegistrationError("there is no daemon to stop: none is running on this machine")
    return RegistrationError(f"no daemon of this machine was started with these flags; {_those(daemons)}")


def _those(daemons: DaemonRegistry) -> str:
    names = ", ".join(daemon.worker for daemon in daemons.running())
    return f"running: {names}" if names else "none is running"


def status(shared: Shared, flags: DaemonFlags) -> None:
    """Print the daemons that were started with the flags given, each with its queues and when it serves them.

    Without one, and with ``--queue``, what a daemon with these flags would serve now; else no server is asked.
    """
    daemons = daemons_of(flags.configuration(shared).settings)
    given = flags.given()
    found = matching([daemon for daemon in daemons.all() if daemons.is_running(daemon) is not False], given)
    for daemon in found:
        _show(daemons, daemon)
    if not found:
        click.echo(_without(daemons, given))
    if flags.queues:
        _show_plan(make_plan(shared, flags), None)
        return
    for daemon in found:
        click.echo()
        _show_plan(make_plan(shared, DaemonFlags.recorded(daemon.flags)), daemon.worker)


def _without(daemons: DaemonRegistry, given: Mapping[str, object]) -> str:
    if given and daemons.running():
        return f"No daemon is running with these flags; {_those(daemons)}"
    return "No daemon is running on this machine; `hpc-agent daemon --queue QUEUE` starts one"


def _show(daemons: DaemonRegistry, daemon: DaemonRecord) -> None:
    where = "" if daemons.is_running(daemon) else f" on {daemon.host}, {_last_seen(daemons, daemon)}"
    click.echo(
        f"{daemon.worker}: process {daemon.process.pid}{where}, since {daemon.since.astimezone():%Y-%m-%d %H:%M}"
    )
    log = daemons.file(daemon.worker, "log")
    if log.exists():
        click.echo(f"  log: {log}")


def _last_seen(daemons: DaemonRegistry, daemon: DaemonRecord) -> str:
    silent = daemons.last_beat(daemon)
    return "heartbeat unknown" if silent is None else f"last heartbeat {max(silent, 0):.0f} s ago"


def _show_plan(plan: DaemonPlan, worker: WorkerId | None) -> None:
    worker = worker or plan.name.id(0)
    properties = _properties(plan, worker)
    local = SYSTEM.now().astimezone()
    click.echo(f"{worker} takes tasks: {plan.schedule}")
    for key, value in properties.items():
        click.echo(f"  runtime property on the server: {key}: {value}")
    for queue in plan.queues:
        decision = served(queue.tags, str(properties.get(FORCE) or ""), plan.schedule, local)
        gpus = (plan.options.dynamic or {}).get(queue.name)
        share = (
            f", {gpus.least if gpus.least == gpus.most else f'{gpus.least}-{gpus.most}'} GPUs a task" if gpus else ""
        )
        state = "served now" if decision.active else "not served now"
        click.echo(f"  queue {one_line(queue.name)}: {len(queue.entries)} waiting{share}, {state} ({decision.why})")


def _properties(plan: DaemonPlan, worker: WorkerId) -> dict[str, object]:
    try:
        return plan.client.workers.runtime_properties(worker)
    except HpcAgentError as error:
        click.echo(f"Runtime properties cannot be read from the server: {error}", err=True)
        return {}
