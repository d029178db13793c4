"""A followed task at the terminal: its console on stdout, its way on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

from hpc_agent.cli.table import one_line
from hpc_agent.clock import SYSTEM
from hpc_agent.inspection.task_follower import End, Output, Step

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class ConsoleDisplay:
    """``when_interrupted``: what Ctrl-C leaves, in a sentence."""

    def __init__(self, when_interrupted: str) -> None:
        self._when_interrupted = when_interrupted
        self._within_line = False
        """Whether the console ended within a line."""

    def show(self, events: Iterable[Step | Output | End]) -> int:
        """Until the task's end; returns its exit code, or ``INTERRUPTED``."""
        try:
            for event in events:
                if isinstance(event, Output):
                    self._print(event.text)
                elif isinstance(event, End):
                    self._note(event.text, "green" if event.exit_code == 0 else "red")
                    return event.exit_code
                else:
                    self._note(event.text, "cyan")
        except KeyboardInterrupt:
            self._note(self._when_interrupted, "yellow")
            return INTERRUPTED
        except BrokenPipeError:
            # The reader of the console has left (| head): the task goes on, and this command has no more to do.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        raise AssertionError("a follower ends with an End")

    def _print(self, text: str) -> None:
        if text:
            print_console(text)
            self._within_line = not text.endswith("\n")

    def _note(self, text: str, color: str) -> None:
        if self._within_line and sys.stdout.isatty():
            click.echo()
        self._within_line = False
        line = f"{SYSTEM.now().astimezone():%H:%M:%S} {one_line(text)}"
        colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        click.echo(click.style(line, fg=color) if colored else line, err=True)


def print_console(text: str) -> None:
    """As the task printed it, colours too, wherever it goes."""
    click.echo(text, nl=False, color=True)
