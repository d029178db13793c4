"""Programs that are run in our place, for the user at the terminal."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from hpc_agent.errors import ProcessError
from hpc_agent.process.programs import as_file
from hpc_agent.request_counts import COUNTS


def pass_through(
    argv: Sequence[str], *, env: Mapping[str, str], input: bytes | None, on_output: Callable[[bytes], None]
) -> tuple[int, bytes]:
    """Run a program in our place, for the user at the terminal: it reads our stdin (or ``input``), and what it prints
    on stdout and stderr goes on to ours as it comes. Signals that would end us reach it instead.

    ``on_output`` gets each piece of its stdout. Returns its exit code (negative: the signal that ended it) and the
    beginning of its stderr.

    Raises:
        ProcessError: it could not be started.
    """
    COUNTS.count_command(argv)
    try:
        with as_file(input) as stdin:
            child = subprocess.Popen(
                list(argv), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env)
            )
    except OSError as error:
        raise ProcessError(f"could not start {argv[0]}: {error.strerror or error}") from error
    errors = bytearray()
    with child, _forwarding_signals(child), selectors.DefaultSelector() as selector:
        assert child.stdout is not None and child.stderr is not None
        selector.register(child.stdout, selectors.EVENT_READ, sys.stdout.fileno())
        selector.register(child.stderr, selectors.EVENT_READ, sys.stderr.fileno())
        while selector.get_map():
            for key, _ in selector.select():
                piece = os.read(key.fd, 65536)
                if not piece:
                    selector.unregister(key.fileobj)
                    continue
                _write_all(key.data, piece)
                if key.fileobj is child.stdout:
                    on_output(piece)
                elif len(errors) < 65536:
                    errors += piece
        return child.wait(), bytes(errors)


@contextmanager
def _forwarding_signals(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """What is sent to us is for the child; Ctrl-C in a terminal reaches both, so that we need only stay."""

    def forward(number: int, _frame: object) -> None:
        if number in (signal.SIGTERM, signal.SIGHUP):
            child.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    with contextlib.suppress(BrokenPipeError):  # the reader has left; the child's work is done anyway
        while view:
            view = view[os.write(descriptor, view) :]
