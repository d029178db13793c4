"""``hpc-agent cancel``: end tasks, wherever they are between queue and end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from hpc_agent.cli.shared_options import HELP, Shared, pass_shared
from hpc_agent.cli.table import one_line, wrapped


@click.command(context_settings=HELP)
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@pass_shared
def command(shared: Shared, tasks: Sequence[str]) -> None:
    """Cancel tasks: a queued one leaves its queue, a running one is asked to end, as Abort on its page does.

    TASK is a task's id or the beginning of it, its job's number, or its name. Of a job of hpc-agent sbatch the job is
    cancelled. If one of the words means no task, nothing is cancelled.
    """
    from hpc_agent.cli.inspection_options import inspect_site
    from hpc_agent.errors import ApiError, HpcAgentError

    site = inspect_site(shared)
    found = dict.fromkeys(site.find(task) for task in tasks)
    canceller = site.canceller()
    failed: HpcAgentError | None = None
    for task in found:
        try:
            done = canceller.cancel(task)
            click.echo(wrapped(one_line(f"{done.name or 'Task'} ({task[:8]}) {done.sentence}")))
        except ApiError as error:
            failed = error
            click.echo(f"Task {task} could not be cancelled: {error}", err=True)
    if failed is not None:
        sys.exit(1)
