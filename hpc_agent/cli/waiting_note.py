"""Note for a person at a terminal that a command waits, and for whom."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

_AFTER_S = 2.0


@contextmanager
def waiting_note(text: str = "Waiting for the server and the scheduler …") -> Iterator[None]:
    """After two seconds the text is on stderr, where that is a terminal; it is taken away at the end."""
    if not sys.stderr.isatty():
        yield
        return
    is_over = threading.Event()

    def show() -> None:
        if not is_over.wait(_AFTER_S):
            click.echo(click.style(text, dim=True), nl=False, err=True)
            is_over.wait()
            click.echo("\r\x1b[K", nl=False, err=True)

    note = threading.Thread(target=show, name="waiting-note", daemon=True)
    note.start()
    try:
        yield
    finally:
        is_over.set()
        note.join()
