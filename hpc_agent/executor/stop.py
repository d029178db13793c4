"""Why a running task has to end. The first reason holds."""

from __future__ import annotations

from enum import Enum


class StopReason(Enum):
    ABORT = "aborted by its user"
    TAKEN_BACK = "its status was changed on the server"
    SIGNAL = "the job was told to end"
    """SIGTERM: cancelled, preempted or out of time; the scheduler knows which."""
    INTERRUPT = "interrupted at the terminal"
    TIME_LIMIT = "its time limit is near"
    FENCED = "the task is run by another start of its job, or was taken back"
    """This process must end without a word: another one speaks for the task now."""


class StopRequest:
    """Asked by a thread or a signal handler, read by the thread that supervises.

    No locks: a signal handler may interrupt their holder. Each assignment is atomic, and two at once are equally right.
    """

    def __init__(self) -> None:
        self._why: StopReason | None = None
        self._held_until = 0.0
        self.signalled = False
        """SIGTERM came: the scheduler's patience has an end, whatever the reason to stop was."""

    @property
    def why(self) -> StopReason | None:
        return self._why

    def ask(self, why: StopReason, *, hold_until: float = 0.0) -> None:
        """``hold_until``: the moment (monotonic) up to which the process may go on by itself."""
        if self._why is None:
            self._held_until = hold_until
            self._why = why
        elif why in (StopReason.SIGNAL, StopReason.FENCED):
            self.go()

    def go(self) -> None:
        """What the process was given time for is done, or must be."""
        self._held_until = 0.0

    def is_held(self, now: float) -> bool:
        return now < self._held_until
