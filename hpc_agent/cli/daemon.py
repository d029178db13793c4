"""``hpc-agent daemon``: serve queues, from a login node of a cluster or on a machine without one."""

from __future__ import annotations

from typing import Any

import click

from hpc_agent.cli.multi_value_options import MultiValueCommand, MultiValueOption
from hpc_agent.cli.shared_options import HELP, FiniteRange, Shared, docker_option, pass_shared, worker_flags


@click.command(cls=MultiValueCommand, context_settings=HELP)
@click.option(
    "--queue",
    "queues",
    cls=MultiValueOption,
    at_least=1,
    metavar="QUEUE",
    help="Names or ids in order of priority; with --dynamic-gpus each with =N or =N-M.",
)
@click.option("--create-queue", is_flag=True, help="Create a queue that does not exist.")
@click.option("--order-fairness", is_flag=True, help="Serve the queues in turn, not in order of priority.")
@click.option("--polling-interval", type=FiniteRange(0.1, 86400), help="Seconds between two passes over the queues.")
@click.option("--foreground", is_flag=True, help="Log to the terminal, not to a file in <hpc.root>/daemons.")
@click.option("-d", "--detached", is_flag=True, help="Go on in the background; the command returns at once.")
@click.option("--once", is_flag=True, help="One pass, for cron, scrontab and tests; waits for its environment builds.")
@click.option(
    "--stop",
    cls=MultiValueOption,
    metavar="WORKER",
    help="Stop these daemons, else the first of this machine that was started with the other flags given.",
)
@click.option("--status", is_flag=True, help="Show the daemons of this machine, their queues and when they serve them.")
@click.option("--services-mode", type=int, is_flag=False, flag_value=-1, metavar="[N]", help="Run many long CPU tasks.")
@click.option(
    "--dynamic-gpus", is_flag=True, help="Give each task the number of GPUs of its queue: --queue two=2 any=1-4."
)
@click.option(
    "--uptime", cls=MultiValueOption, at_least=1, metavar="'HOURS DAYS'", help="Take tasks only then: '17-20 TUE'."
)
@click.option("--downtime", cls=MultiValueOption, at_least=1, metavar="'HOURS DAYS'", help="Take no tasks then.")
@click.option(
    "--child-report-tags", cls=MultiValueOption, at_least=1, metavar="TAG", help="Tags of the tasks' reports."
)
@click.option("--use-owner-token", is_flag=True, help="Tasks call the server as their owners (needs an administrator).")
@click.option("--standalone-mode", is_flag=True, help="No package index, no git remote: all from the shared cache.")
@click.option(
    "--template-files",
    cls=MultiValueOption,
    at_least=1,
    metavar="FILE",
    help="Templates of the job scripts, the n-th for the n-th queue, or one for all: Jinja, or as ClearML's Slurm glue "
    "has them.",
)
@click.option(
    "--singularity-mode",
    is_flag=True,
    help="Templates start containers by `srun singularity exec ${CLEARML_AGENT_EXECUTE}`.",
)
@click.option("--srun-delegation", is_flag=True, help="Templates have a function srun that starts containers (pyxis).")
@click.option("--force-current-version", is_flag=True, help="This version in containers too (always so here).")
@click.option("--for-user", hidden=True, help="Serve the tasks of this Linux user; the rest comes on stdin.")
@docker_option
@worker_flags
@pass_shared
def command(shared: Shared, /, for_user: str | None, **flags: Any) -> None:
    """Serve queues: each waiting task becomes a job that claims and runs it.

    Jobs go to Slurm if it is installed, else they run on this machine. The daemon removes no task from a queue: it may
    stop and start again anywhere, jobs go on, tasks stay in their queues.
    """
    from hpc_agent.cli.daemon_flags import DaemonFlags

    given = DaemonFlags(**flags)
    if for_user is not None:
        from hpc_agent.cli.user_daemon import serve

        serve(shared, for_user)
    elif given.stop is not None:
        from hpc_agent.cli.daemon_control import stop

        stop(shared, given)
    elif given.status:
        from hpc_agent.cli.daemon_control import status

        status(shared, given)
    else:
        from hpc_agent.cli.daemon_start import start

        start(shared, given)
