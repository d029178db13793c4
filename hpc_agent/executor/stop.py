"""Why a running task has to end. The first reason holds."""

from __future__ import annotations

import threading
from enum import Enum


class Why(Enum):
    ABORT = "aborted by its user"
    TAKEN_BACK = "its status was changed on the server"
    SIGNAL = "the job was told to end"
    """SIGTERM: cancelled, preempted or out of time; Slurm knows which, we do not."""
    INTERRUPT = "interrupted at the terminal"


class StopRequest:
    """Asked by a thread or a signal handler, read by the thread that supervises."""

    def __init__(self) -> None:
        self._why: Why | None = None
        self.event = threading.Event()

    @property
    def why(self) -> Why | None:
        return self._why

    def ask(self, why: Why) -> None:
        # A signal handler must take no lock: the assignment is atomic, and two at once are equally right.
        if self._why is None:
            self._why = why
        self.event.set()
