"""``hpc-task --follow``: the console on stdout, the task's way on stderr, the task's exit code at the end."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from hpc_agent.api.client import Client
from hpc_agent.cli.table import one_line
from hpc_agent.clock import SYSTEM
from hpc_agent.drafts.create import Created
from hpc_agent.drafts.follow import End, Output, TaskFollower

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def follow(client: Client, created: Created) -> NoReturn:
    """Show what becomes of a task until it ends, and exit with its exit code. Ctrl-C leaves it running."""
    sys.exit(_Display().show(TaskFollower(client, created.id, SYSTEM), created))


class _Display:
    def __init__(self) -> None:
        self._within_line = False
        """Whether the console ended within a line."""

    def show(self, follower: TaskFollower, created: Created) -> int:
        try:
            for event in follower.events():
                if isinstance(event, Output):
                    self._print(event.text)
                elif isinstance(event, End):
                    self._note(event.text, "green" if event.exit_code == 0 else "red")
                    return event.exit_code
                else:
                    self._note(event.text, "cyan")
        except KeyboardInterrupt:
            self._note(f"the task goes on; {_how_to_cancel(created)}", "yellow")
            return INTERRUPTED
        except BrokenPipeError:
            # The reader of the console has left (| head): the task goes on, and this command has no more to do.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        raise AssertionError("a follower ends with an End")

    def _print(self, text: str) -> None:
        if text:
            click.echo(text, nl=False)
            self._within_line = not text.endswith("\n")

    def _note(self, text: str, color: str) -> None:
        if self._within_line and sys.stdout.isatty():
            click.echo()
        self._within_line = False
        line = f"{SYSTEM.now().astimezone():%H:%M:%S} {one_line(text)}"
        colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        click.echo(click.style(line, fg=color) if colored else line, err=True)


def _how_to_cancel(created: Created) -> str:
    page = f"abort it on its page, {created.page}" if created.page else "abort it on its page"
    return f"to cancel it, run `hpc-agent cancel {created.id}` or {page}"
