"""``hpc-agent follow``: track submitted jobs until their tasks have a final status. Jobs call it too."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import click

from hpc_agent.cli.job_relay import job_relay, login_relay
from hpc_agent.cli.shared_options import HELP, Shared, check_folders, pass_shared


@click.command(context_settings=HELP)
@click.option("--once", is_flag=True, help="One pass, for cron.")
@click.option("--inside", type=click.Path(path_type=Path), hidden=True, help="In a job: accompany its script.")
@click.option("--pid", type=int, default=0, hidden=True, help="In a job: the process id of its script.")
@click.option("--element", type=click.Path(path_type=Path), hidden=True, help="In an array: print its element's task.")
@pass_shared
def command(shared: Shared, once: bool, inside: Path | None, pid: int, element: Path | None) -> None:
    """Follow the jobs of hpc-agent sbatch until their tasks have a final status.

    hpc-agent sbatch starts this in the background of the login node, where one serves all jobs of a user; it ends when
    nothing is left to follow. Where processes do not live long there, cron may call it with --once.
    """
    from hpc_agent.clock import SYSTEM
    from hpc_agent.retry import INTERACTIVE, ROUTINE, Budget
    from hpc_agent.tracking.tracked_records import TrackedDirectory, TrackedRoot

    # Cron mails what is printed.
    shared.start_log("WARNING" if once else "INFO")
    configuration = shared.configuration()
    settings = configuration.settings
    if inside is not None:
        from hpc_agent.tracking.sidecar import Sidecar

        with job_relay(settings):
            client = shared.client(configuration, ROUTINE)
            Sidecar(client, settings, TrackedDirectory(inside), os.environ, SYSTEM).run(pid)
        return
    if element is not None:
        from hpc_agent.tracking.task_start import element as task_of_element

        # The script waits for this.
        with job_relay(settings):
            client = shared.client(configuration, Budget(10))
            click.echo(task_of_element(client, TrackedDirectory(element), os.environ, SYSTEM))
        return
    from hpc_agent.schedulers.slurm.driver import SlurmScheduler
    from hpc_agent.schedulers.slurm.settings import SlurmSettings
    from hpc_agent.tracking.follower import Follower, acquire_follower

    check_folders(settings)
    root = TrackedRoot.under(settings.hpc.root)
    scheduler = SlurmScheduler(settings.hpc.backend_settings(SlurmSettings), cluster=settings.hpc.cluster)
    follower = Follower(shared.client(configuration, INTERACTIVE), scheduler, settings, root, SYSTEM)
    with nullcontext() if once else login_relay(settings, "follow", scheduler.cluster):
        acquire_follower(follower, root, SYSTEM, once=once)
