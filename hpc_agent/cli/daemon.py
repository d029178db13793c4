"""``hpc-agent daemon``: serve queues from a login node."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import click

from hpc_agent.cli.context import Shared, git_flags, pass_shared
from hpc_agent.cli.options import MultiValueCommand, MultiValueOption


@click.command(cls=MultiValueCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--queue", "queues", cls=MultiValueOption, at_least=1, metavar="QUEUE", help="Names or ids, first first.")
@click.option("--create-queue", is_flag=True, help="Create a queue that does not exist.")
@click.option("--order-fairness", is_flag=True, help="Serve the queues in turn, not in order of priority.")
@click.option("--polling-interval", type=click.FloatRange(min=0.1), help="Seconds between two looks at the queues.")
@click.option("--foreground", is_flag=True, help="Log to the terminal, not to <hpc.root>/daemon.log.")
@click.option("--once", is_flag=True, help="One pass, for cron, scrontab and tests; waits for its environment builds.")
@click.option("--git-user", help="User for HTTPS git remotes.")
@click.option("--git-pass", help="Password or token for HTTPS git remotes.")
@pass_shared
def command(
    shared: Shared,
    queues: tuple[str, ...] | None,
    create_queue: bool,
    order_fairness: bool,
    polling_interval: float | None,
    foreground: bool,
    once: bool,
    git_user: str | None,
    git_pass: str | None,
) -> None:
    """Serve queues: each waiting task becomes a Slurm job that claims and runs it.

    Nothing is taken off a queue here. The daemon may die and come back anywhere: jobs go on, tasks stay where they are.
    """
    from hpc_agent.clock import SYSTEM
    from hpc_agent.config.dump import write_job_config
    from hpc_agent.daemon.launch import Launch
    from hpc_agent.daemon.loop import Daemon, Options
    from hpc_agent.domain.ids import WorkerId
    from hpc_agent.files import ensure_directory
    from hpc_agent.retry import INTERACTIVE
    from hpc_agent.schedulers.registry import create

    configuration = shared.configuration({**git_flags(git_user, git_pass), "hpc.poll_interval": polling_interval})
    settings = configuration.settings
    client = shared.client(configuration, INTERACTIVE)
    ids = [client.queues.resolve(name, create=create_queue) for name in queues or ()] or [client.queues.default()]
    scheduler = create(settings.hpc, SYSTEM)
    root = ensure_directory(settings.hpc.root.expanduser(), mode=0o700)
    shared.start_log("INFO", None if foreground or once else root / "daemon.log")
    config_file = root / "job.conf"
    write_job_config(configuration, config_file)
    agent = settings.hpc.agent_command or (sys.executable, "-m", "hpc_agent")
    worker = WorkerId(settings.agent.worker_id or f"{settings.agent.name}:{scheduler.name}:{scheduler.cluster()}")
    # The folder we were started in may vanish; ours stays.
    os.chdir(root)
    daemon = Daemon(
        client,
        scheduler,
        settings,
        Launch(config_file, agent),
        Options(tuple(dict.fromkeys(ids)), worker, order_fairness),
        SYSTEM,
    )
    if once:
        sys.exit(0 if daemon.once() else 69)
    _stop_on_signals(daemon.stop)
    names = ", ".join(queues or ("default",))
    click.echo(f"Serving {names} through {scheduler.name} as {worker}; Ctrl-C or SIGTERM stops, jobs go on", err=True)
    if not foreground:
        click.echo(f"The log is {root / 'daemon.log'}", err=True)
    daemon.run()
    click.echo("Stopped; jobs go on", err=True)


def _stop_on_signals(stop: Callable[[], None]) -> None:
    def handler(_number: int, _frame: FrameType | None) -> None:
        stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)
