"""``hpc-agent logs``: a task's console at the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.shared_options import HELP, Shared, pass_shared
from hpc_agent.cli.waiting_note import waiting_note

if TYPE_CHECKING:
    from hpc_agent.api.console_pages import ConsolePages


@click.command(context_settings=HELP)
@click.argument("task")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended; Ctrl-C leaves it running.")
@click.option("-n", "--lines", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--job", is_flag=True, help="What the job itself printed: the agent's log and the scheduler's messages.")
@pass_shared
def command(shared: Shared, task: str, follow: bool, lines: int | None, job: bool) -> None:
    """Print a task's console.

    TASK is a task's id or the beginning of it, its job's number, or its name. What is not of the console, such as why
    a task waits, is printed on stderr.
    """
    from hpc_agent.api.console_pages import ConsolePages
    from hpc_agent.cli.console_display import INTERRUPTED, ConsoleDisplay, print_console
    from hpc_agent.cli.inspection_options import inspect_site
    from hpc_agent.clock import SYSTEM
    from hpc_agent.inspection.console_tail import skip_to_last
    from hpc_agent.inspection.task_follower import TaskFollower

    if job and follow:
        raise click.UsageError("--job prints a file as it is now: it excludes --follow")
    site = inspect_site(shared)
    with waiting_note():
        id = site.find(task)
    if job:
        _print_job_output(site.job_output(id), lines)
        return
    site.client.tasks.get(id)
    pages = ConsolePages(site.client.events, id)
    if lines is not None:
        print_console(skip_to_last(pages, site.views, id, lines))
    if follow:
        display = ConsoleDisplay(f"the task goes on; `hpc-agent cancel {id[:8]}` ends it")
        if display.show(TaskFollower(site.client, id, SYSTEM, pages, waits_for_drafts=True).events()) == INTERRUPTED:
            sys.exit(INTERRUPTED)
    elif lines is None:
        _print_all(pages, id)


def _print_all(pages: ConsolePages, task: str) -> None:
    from hpc_agent.cli.console_display import print_console

    printed = False
    for text in pages.rest():
        printed = True
        print_console(text)
    if not printed:
        click.echo(f"The task has printed nothing yet; `hpc-agent why {task[:8]}` tells where it is", err=True)


def _print_job_output(text: str, lines: int | None) -> None:
    from hpc_agent.cli.console_display import print_console

    kept = text.splitlines(keepends=True)
    print_console("".join(kept if lines is None else kept[-lines:] if lines else []))
