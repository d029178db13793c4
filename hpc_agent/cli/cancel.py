"""``hpc-agent cancel``: end tasks, wherever they are between queue and end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from hpc_agent.cli.shared_options import HELP, Shared, exit_code, pass_shared
from hpc_agent.cli.table import one_line, wrapped
from hpc_agent.cli.waiting_note import waiting_note


@click.command(context_settings=HELP)
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@pass_shared
def command(shared: Shared, tasks: Sequence[str]) -> None:
    """Cancel tasks: a queued one leaves its queue, a running one is asked to end, as Abort on its page does.

    TASK is a task's id or the beginning of it, its job's number, or its name. Of a job of hpc-agent sbatch the job is
    cancelled. If one of the words means no task, or a name is of another user's, nothing is cancelled.
    """
    from hpc_agent.cli.inspection_options import inspect_site
    from hpc_agent.errors import ApiError, HpcAgentError, SchedulerUnavailableError, ServerUnreachableError

    site = inspect_site(shared)
    with waiting_note():
        found = dict.fromkeys(site.find_own(task) for task in tasks)
    canceller = site.canceller()
    failed: HpcAgentError | None = None
    for number, task in enumerate(found):
        try:
            done = canceller.cancel(task)
            click.echo(wrapped(one_line(f"{done.name or 'Task'} ({task[:8]}) {done.sentence}")))
        except (ApiError, SchedulerUnavailableError, ServerUnreachableError) as error:
            failed = error
            click.echo(f"Task {task} could not be cancelled: {one_line(str(error))}", err=True)
            if isinstance(error, ServerUnreachableError) and number + 1 < len(found):
                click.echo(f"Not tried: {' '.join([*found][number + 1 :])}", err=True)
                break
    if failed is not None:
        sys.exit(exit_code(failed))
