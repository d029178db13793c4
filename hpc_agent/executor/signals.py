"""Signals of a run: Slurm's end and early warning, Ctrl-C, and our own way out of a preparation."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from hpc_agent.executor.interruption import Deadline
from hpc_agent.executor.stop import StopReason, StopRequest

WARNING = signal.SIGUSR1
"""What ``--signal=B:USR1@…`` sends ahead of the time limit."""
_WAKE = signal.SIGUSR2


class PreparationInterrupted(BaseException):
    """Raised by a signal handler to leave the preparation; never leaves this package."""


class Signals:
    """No handler takes a lock or does more than set a flag."""

    def __init__(self, stop: StopRequest, deadline: Deadline) -> None:
        self._stop = stop
        self._deadline = deadline
        self._preparing = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """From here on SIGTERM and Ctrl-C end the task, not us."""
        numbers = (signal.SIGTERM, signal.SIGINT, WARNING, _WAKE)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        # So the job's script does while it has no agent yet. What the task starts does not inherit it from here on.
        self._deadline.may_have_missed = before[WARNING] == signal.SIG_IGN
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wake(self) -> None:
        """Bring the main thread out of git or an installer, when a stop was asked for."""
        os.kill(os.getpid(), _WAKE)

    @contextmanager
    def unwinding(self) -> Iterator[None]:
        """A part that a stop leaves by exception, because it waits for git or an installer."""
        self._preparing = True
        try:
            if self._stop.why is not None:
                raise PreparationInterrupted
            yield
        finally:
            self._preparing = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == WARNING:
            self._deadline.warned = True
        elif number == signal.SIGINT:
            self._stop.ask(StopReason.INTERRUPT)
        elif number == signal.SIGTERM:
            self._stop.signalled = True
            self._stop.ask(StopReason.SIGNAL)
        if self._preparing and self._stop.why is not None:
            self._preparing = False
            raise PreparationInterrupted
