"""``hpc-agent logs``: a task's console at the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hpc_agent.cli.shared_options import HELP, Shared, pass_shared
from hpc_agent.cli.table import one_line
from hpc_agent.cli.waiting_note import waiting_note

if TYPE_CHECKING:
    from hpc_agent.inspection.console_reader import ConsoleReader

_INTERRUPTED = 130


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
    from hpc_agent.cli.inspection_options import inspect_site
    from hpc_agent.clock import SYSTEM
    from hpc_agent.inspection.console_reader import ConsoleReader, ConsoleText

    if job and follow:
        raise click.UsageError("--job prints a file as it is now: it excludes --follow")
    site = inspect_site(shared)
    with waiting_note():
        id = site.find(task)
    if job:
        _print_job_output(site.job_output(id), lines)
        return
    site.client.tasks.get(id)
    reader = ConsoleReader(site.client, site.views, id, SYSTEM)
    try:
        if lines is not None:
            _write(reader.skip_to_last(lines))
        if not follow:
            if lines is None:
                _print_all(reader, id)
            return
        for part in reader.follow():
            if isinstance(part, ConsoleText):
                _write(part.text)
            else:
                click.echo(click.style(one_line(part.text), dim=True), err=True)
    except KeyboardInterrupt:
        click.echo(f"\nThe task goes on; `hpc-agent cancel {id[:8]}` ends it", err=True)
        sys.exit(_INTERRUPTED)


def _print_all(reader: ConsoleReader, task: str) -> None:
    printed = False
    for text in reader.rest():
        printed = True
        _write(text)
    if not printed:
        click.echo(f"The task has printed nothing yet; `hpc-agent why {task[:8]}` tells where it is", err=True)


def _write(text: str) -> None:
    click.echo(text, nl=False, color=True)


def _print_job_output(text: str, lines: int | None) -> None:
    kept = text.splitlines(keepends=True)
    _write("".join(kept if lines is None else kept[-lines:] if lines else []))
