"""``hpc-agent session``: an interactive session in a job of a queue, and the commands that connect to it."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.shared_options import HELP, Shared, pass_shared
from hpc_agent.cli.task_resources import RESOURCES, resource_flags

if TYPE_CHECKING:
    from hpc_agent.sessions.interactive_session import ServedSession, StartedSession

_INTERRUPTED = 130


@click.command(context_settings=HELP)
@click.option("--queue", required=True, metavar="NAME", help="Queue whose jobs the session is one of.")
@click.option("--jupyter", is_flag=True, help="Serve JupyterLab too, through ssh.")
@click.option("--packages", multiple=True, metavar="PACKAGE", help="A package of its environment; may be repeated.")
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The key that is let in (default: the first of yours in ~/.ssh).",
)
@click.option("--login", metavar="HOST", help="Login node as your own machine knows it (default: this machine's name).")
@click.option("--sshd", default="", metavar="PATH", help="OpenSSH's server on the node, where it is not on its PATH.")
@click.option("--project", default="Sessions", show_default=True, metavar="NAME", help="Project of its task.")
@click.option("--name", metavar="NAME", help="Name of its task.")
@click.option("--json", "as_json", is_flag=True, help="Print one object for programs.")
@resource_flags
@pass_shared
def command(
    shared: Shared,
    /,
    queue: str,
    jupyter: bool,
    packages: tuple[str, ...],
    public_key: Path | None,
    login: str | None,
    sshd: str,
    project: str,
    name: str | None,
    as_json: bool,
    **resources: str | None,
) -> None:
    """Start a session in a job: a shell on its node by ssh, and JupyterLab.

    Waits until the job serves, then prints how to connect, from here and from your own machine through the login node.
    The session ends with its time limit, or by `hpc-agent cancel`.
    """
    from hpc_agent.clock import SYSTEM
    from hpc_agent.retry import INTERACTIVE
    from hpc_agent.runs.directory import RunsFolder
    from hpc_agent.runs.session_folders import SessionFolders
    from hpc_agent.sessions import interactive_session as sessions

    shared.start_log()
    configuration = shared.configuration()
    key = sessions.public_key(public_key, Path.home())
    client = shared.client(configuration, INTERACTIVE)
    request = sessions.SessionRequest(
        queue=queue,
        project=project,
        name=name or sessions.default_name(),
        public_key=key,
        resources={field: value for field in RESOURCES if (value := resources[field]) is not None},
        jupyter=jupyter,
        sshd=sshd,
        packages=packages,
    )
    hpc = configuration.settings.hpc
    folders = SessionFolders(hpc.root.absolute() / "sessions", RunsFolder(hpc.runs))
    started = sessions.start(client, folders, request)
    click.echo(f"Session {started.task} is on queue {queue}", err=True)
    try:
        for event in sessions.wait(client, started, SYSTEM):
            if isinstance(event, str):
                click.echo(event, err=True)
            else:
                _print(started, event, login or socket.getfqdn(), as_json)
    except KeyboardInterrupt:
        click.echo(f"the session goes on; to end it, run `hpc-agent cancel {started.task}`", err=True)
        raise SystemExit(_INTERRUPTED) from None


def _print(started: StartedSession, served: ServedSession, login: str, as_json: bool) -> None:
    here = _ssh(served, "-o", f"UserKnownHostsFile={started.known_hosts}")
    elsewhere = _ssh(served, "-J", f"{served.user}@{login}")
    link = f"http://127.0.0.1:{served.jupyter_port}/lab?token={served.token}" if served.jupyter_port else ""
    if as_json:
        connect = {"here": here, "elsewhere": elsewhere, "jupyter": link}
        facts = {"task": started.task, "host": served.host, "port": served.port, "connect": connect}
        click.echo(json.dumps({**facts, "fingerprint": served.fingerprint}, indent=2))
        return
    click.echo(f"Served on {served.host}, host key {served.fingerprint}")
    click.echo(f"\nFrom here:\n  {shlex.join(here)}")
    click.echo(f"From your own machine, through the login node:\n  {shlex.join(elsewhere)}")
    if link:
        forward = ["-N", "-L", f"{served.jupyter_port}:127.0.0.1:{served.jupyter_port}"]
        click.echo(f"JupyterLab: with\n  {shlex.join([elsewhere[0], *forward, *elsewhere[1:]])}\nit is at\n  {link}")
    click.echo(f"\nTo end it: hpc-agent cancel {started.task}")


def _ssh(served: ServedSession, *options: str) -> list[str]:
    return ["ssh", *options, "-p", str(served.port), f"{served.user}@{served.host}"]
